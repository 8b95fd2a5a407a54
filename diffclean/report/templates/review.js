// The review page: cards are buttons, the focused one is the chosen one, and every decision is sent at once.
"use strict";

const cards = document.getElementById("cards");
const kinds = document.body.dataset.kinds.split(" ");
const undone = [];
let images = [];
let waiting = 0;

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function percent(share) {
  if (share === null) return "";
  if (share < 1 && share >= 0.9995) return "> 99.9 %";
  return (100 * share).toFixed(1) + " %";
}

function card(image, row) {
  const made = element("button", "card");
  const pictures = element("span", "two");
  for (const kind of kinds) {
    const picture = element("img");
    picture.loading = "lazy";
    picture.decoding = "async";
    picture.alt = kind;
    picture.width = picture.height = 224;
    picture.addEventListener("load", () => {
      if (Math.max(picture.naturalWidth, picture.naturalHeight) <= 64) picture.classList.add("tiny");
    });
    picture.addEventListener("error", () => whyNot(picture), { once: true });
    picture.src = `picture/${kind}/${row}`;
    pictures.append(picture);
  }
  const text = element("span", "text");
  const verb = element("span", "verb");
  verb.append(element("span", "said"), element("span", "num", percent(image.probability)));
  const key = element("code");
  key.append(element("bdi", "", image.key));
  key.title = image.key;
  const label = element("b");
  label.append(element("bdi", "", image.label));
  text.append(verb, label, key);
  made.append(pictures, text);
  made.addEventListener("click", () => decide(row, !image.suspect));
  made.tabIndex = row ? -1 : 0;
  return made;
}

async function whyNot(picture) {
  const answer = await fetch(picture.src).catch(() => null);
  const why = answer && answer.status === 404 ? await answer.text() : "cannot be shown";
  picture.replaceWith(element("span", "none", why));
}

function show(row) {
  const made = cards.children[row];
  made.setAttribute("aria-pressed", String(images[row].suspect));
  made.querySelector(".said").textContent = images[row].suspect ? "dropped" : "kept";
}

function count() {
  const dropped = images.filter((image) => image.suspect).length;
  document.getElementById("counts").textContent =
    `${dropped.toLocaleString("en")} dropped, ${(images.length - dropped).toLocaleString("en")} kept`;
}

async function decide(row, suspect, isUndo) {
  if (images[row].suspect === suspect) return;
  if (!isUndo) undone.push(row);
  images[row].suspect = suspect;
  show(row);
  count();
  waiting += 1;
  try {
    const answer = await fetch("decide", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ row, suspect }),
    });
    if (!answer.ok) throw new Error(await answer.text());
    say(await answer.json());
  } catch (error) {
    say({ problem: `This decision did not arrive. Is diffclean review still running? (${error.message})` });
  }
  waiting -= 1;
}

function say(state) {
  const place = document.getElementById("state");
  place.className = state.problem ? "bad" : "";
  place.textContent = state.problem || (state.written ? "written" : "writing ...");
  if (!state.problem && !state.written && !say.timer) {
    say.timer = setTimeout(async () => {
      say.timer = 0;
      const answer = await fetch("state.json").catch(() => null);
      if (answer && answer.ok) say(await answer.json());
    }, 700);
  }
}

function choose(made) {
  if (!made) return;
  const before = cards.querySelector('[tabindex="0"]');
  if (before) before.tabIndex = -1;
  made.tabIndex = 0;
  made.focus({ preventScroll: true });
  made.scrollIntoView({ block: "nearest" });
}

function visible() {
  return [...cards.children].filter((made) => !made.hidden);
}

function rowOf(made) {
  return [...cards.children].indexOf(made);
}

function step(key) {
  const here = document.activeElement.closest ? document.activeElement.closest(".card") : null;
  const all = visible();
  if (!here) return choose(all[0]);
  const at = all.indexOf(here);
  const across = all.filter((made) => made.offsetTop === all[0].offsetTop).length || 1;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[key];
  choose(all[Math.min(all.length - 1, Math.max(0, at + by))]);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
  const here = document.activeElement.closest(".card");
  if (event.key.startsWith("Arrow")) {
    event.preventDefault();
    step(event.key);
  } else if ((event.key === "k" || event.key === "d") && here) {
    decide(rowOf(here), event.key === "d");
    step("ArrowRight");
  } else if (event.key === "u" && undone.length) {
    const row = undone.pop();
    decide(row, !images[row].suspect, true);
    cards.children[row].hidden = false;
    choose(cards.children[row]);
  }
});

function select() {
  const label = document.getElementById("label");
  const wanted = document.getElementById("show").value;
  let any = false;
  images.forEach((image, row) => {
    const fits = (!label || !label.value || image.label === label.value) &&
      (!wanted || image.suspect === (wanted === "drop"));
    cards.children[row].hidden = !fits;
    any = any || fits;
  });
  document.getElementById("none").hidden = any;
}

for (const name of ["label", "show"]) {
  const place = document.getElementById(name);
  if (place) place.addEventListener("change", select);
}
window.addEventListener("beforeunload", (event) => {
  if (waiting) event.preventDefault();
});

fetch("images.json").then((answer) => answer.json()).then((found) => {
  images = found;
  const all = document.createDocumentFragment();
  images.forEach((image, row) => all.append(card(image, row)));
  cards.append(all);
  images.forEach((image, row) => show(row));
  count();
  choose(cards.children[0]);
});
