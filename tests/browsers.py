"""A real browser for tests of pages: Debian's chromium, or google-chrome."""

import shutil

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
