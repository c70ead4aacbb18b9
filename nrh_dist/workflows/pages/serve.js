/* One photo at a time: it is sent as the body of a request to this machine, and what comes back is shown. */
const by = id => document.getElementById(id);
const drop = by("drop"), file = by("file"), status = by("status"), pair = by("pair");
const border = by("border"), strength = by("strength"), found = by("show-found");

function tell(text, isProblem = false) {
  status.textContent = text;
  status.classList.toggle("problem", isProblem);
}

async function send(photo) {
  if (!photo) return;
  tell(`Looking at ${photo.name} …`);
  by("result").hidden = true;
  let response, told;
  try {
    response = await fetch("/photos", {
      method: "POST", body: photo, headers: { "X-From-Page": encodeURIComponent(photo.name || "photo") },
    });
    told = await response.json();
  } catch {
    return tell(`${photo.name}: it could not be sent. Is it larger than 128 MiB, or has nrh serve ended?`, true);
  }
  if (!response.ok) return tell(`${photo.name}: ${told.problem}`, true);
  await show(told);
  tell(`${told.name}: ${told.said}`);
}

async function show(told) {
  by("title").textContent = told.name;
  by("facts").textContent = [`${told.size} pixels`, told.said, ...told.notes].join("; ");
  const has = told.pictures.includes("found.png");
  by("found-choice").hidden = !has || !told.changed;
  found.checked = false;
  await Promise.all(told.pictures.map(name => {
    const picture = by(name.split(".")[0]);
    picture.src = `/photos/${told.photo}/${name}`;
    return picture.decode().catch(() => {});
  }));
  by("result").dataset.photo = told.photo;
  border.value = 50;
  strength.value = 100;
  update();
  by("result").hidden = false;
}

function update() {
  pair.style.setProperty("--at", `${border.value}%`);
  pair.style.setProperty("--strength", strength.value / 100);
  border.setAttribute("aria-valuetext", `${border.value} % before, ${100 - border.value} % after`);
  by("amount").textContent = `${strength.value} %`;
  by("found").hidden = !found.checked;
  by("download").href = `/photos/${by("result").dataset.photo}?strength=${strength.value / 100}`;
}

function move(event) {
  const box = pair.getBoundingClientRect();
  border.value = Math.round(100 * (event.clientX - box.left) / box.width);
  update();
}

pair.addEventListener("pointerdown", event => { pair.setPointerCapture(event.pointerId); move(event); });
pair.addEventListener("pointermove", event => { if (event.buttons) move(event); });
for (const control of [border, strength, found]) control.addEventListener("input", update);
file.addEventListener("change", () => { send(file.files[0]); file.value = ""; });
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, event => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") send(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", event => send(event.clipboardData.files[0]));
