// The review page: cards are buttons, the focused one is the chosen one, and every decision is sent at once, in order:
// the answer to one is awaited before the next is sent, since requests that run side by side may overtake one another.
// A page of cards is drawn at a time, so that five thousand suspects are no slower than fifty.
"use strict";

const PAGE = 120;
const cards = document.getElementById("cards");
const kinds = document.body.dataset.kinds.split(" ");
const decided = [];
let images = [];
let selected = [];
let first = 0;
let waiting = 0;
let sent = Promise.resolve();

const at = (name) => document.getElementById(name);
const shown = (count) => count.toLocaleString("en");

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

function picture(kind, row) {
  const made = element("img");
  made.decoding = "async";
  made.alt = kind;
  made.width = made.height = 224;
  made.addEventListener("load", () => {
    made.classList.toggle("tiny", Math.max(made.naturalWidth, made.naturalHeight) <= 64);
  });
  made.addEventListener("error", () => whyNot(made), { once: true });
  made.loading = "lazy";
  made.src = `picture/${kind}/${row}`;
  return made;
}

async function whyNot(made) {
  const answer = await fetch(made.src).catch(() => null);
  const why = answer && answer.status === 404 ? await answer.text() : "cannot be shown";
  made.replaceWith(element("span", "none", why));
}

function card(row) {
  const image = images[row];
  const made = element("button", "card");
  made.dataset.row = row;
  made.tabIndex = -1;
  const pictures = element("span", "two");
  pictures.append(...kinds.map((kind) => picture(kind, row)));
  const verb = element("span", "verb");
  verb.append(element("span", "said"), element("span", "num", percent(image.probability)));
  const [label, key] = [element("b"), element("code")];
  label.append(element("bdi", "", image.label));
  key.append(element("bdi", "", image.key));
  key.title = image.key;
  const text = element("span", "text");
  text.append(verb, label, key);
  made.append(pictures, text);
  made.addEventListener("click", () => {
    choose(made);
    decide(row, !image.suspect);
  });
  mark(made);
  return made;
}

function mark(made) {
  const suspect = images[made.dataset.row].suspect;
  made.setAttribute("aria-pressed", String(suspect));
  made.querySelector(".said").textContent = suspect ? "dropped" : "kept";
}

// Draw the page that holds a place among what is selected, and choose what is there.
function draw(place) {
  const last = Math.max(0, selected.length - 1);
  const chosen = Math.min(last, Math.max(0, place));
  first = chosen - (chosen % PAGE);
  const rows = selected.slice(first, first + PAGE);
  cards.replaceChildren(...rows.map(card));
  at("none").hidden = rows.length > 0;
  at("pages").hidden = selected.length <= PAGE;
  at("range").textContent = `${shown(first + 1)} to ${shown(first + rows.length)} of ${shown(selected.length)}`;
  at("earlier").disabled = first === 0;
  at("later").disabled = first + PAGE >= selected.length;
  window.scrollTo(0, 0);
  choose(cards.children[chosen - first]);
}

function choose(made) {
  if (!made) return;
  const before = cards.querySelector('[tabindex="0"]');
  if (before) before.tabIndex = -1;
  made.tabIndex = 0;
  made.focus({ preventScroll: true });
  made.scrollIntoView({ block: "nearest" });
}

function chosenCard() {
  return document.activeElement.closest(".card") || cards.querySelector('[tabindex="0"]');
}

function step(key) {
  const made = [...cards.children];
  const here = made.indexOf(chosenCard());
  if (here < 0) return;
  const across = made.filter((one) => one.offsetTop === made[0].offsetTop).length || 1;
  const next = here + { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[key];
  const there = Math.min(selected.length - 1, Math.max(0, first + next));
  if (there >= first && there < first + made.length) choose(made[there - first]);
  else draw(there);
}

function count() {
  const dropped = images.filter((image) => image.suspect).length;
  at("counts").textContent = `${shown(dropped)} dropped, ${shown(images.length - dropped)} kept`;
}

function decide(row, suspect, isUndo) {
  if (images[row].suspect === suspect) return;
  if (!isUndo) decided.push(row);
  show(row, suspect);
  waiting += 1;
  sent = sent.then(() => send(row, suspect));
}

function show(row, suspect) {
  images[row].suspect = suspect;
  const made = cards.querySelector(`[data-row="${row}"]`);
  if (made) mark(made);
  count();
}

async function send(row, suspect) {
  let state;
  try {
    const answer = await fetch("decide", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ row, suspect }),
    });
    if (!answer.ok) throw new Error(await answer.text());
    state = await answer.json();
  } catch (error) {
    show(row, !suspect);
    state = { problem: `This decision did not arrive. Is diffclean review still running? (${error.message})` };
  }
  waiting -= 1;
  say(state);
}

function undo() {
  const row = decided.pop();
  if (row === undefined) return;
  decide(row, !images[row].suspect, true);
  if (!selected.includes(row)) {
    for (const name of ["label", "show"]) if (at(name)) at(name).value = "";
    select();
  }
  const place = selected.indexOf(row);
  if (place < first || place >= first + PAGE) draw(place);
  else choose(cards.children[place - first]);
}

// What the server says of the list: it is written a moment after a decision.
function say(state) {
  const place = at("state");
  place.className = state.problem ? "bad" : "";
  place.textContent = state.problem || (state.written && !waiting ? "written" : "writing ...");
  if (!state.problem && !state.written && !say.timer) {
    say.timer = setTimeout(async () => {
      say.timer = 0;
      const answer = await fetch("state.json").catch(() => null);
      if (answer && answer.ok) say(await answer.json());
    }, 700);
  }
}

function select() {
  const label = at("label") ? at("label").value : "";
  const wanted = at("show").value;
  const fits = (image) =>
    (!label || image.label === label) && (!wanted || image.suspect === (wanted === "drop"));
  selected = [...images.keys()].filter((row) => fits(images[row]));
  draw(0);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
  const here = chosenCard();
  if (event.key.startsWith("Arrow")) {
    event.preventDefault();
    step(event.key);
  } else if ((event.key === "k" || event.key === "d") && here) {
    decide(Number(here.dataset.row), event.key === "d");
    step("ArrowRight");
  } else if (event.key === "u") {
    undo();
  }
});
for (const name of ["label", "show"]) if (at(name)) at(name).addEventListener("change", select);
at("earlier").addEventListener("click", () => draw(first - PAGE));
at("later").addEventListener("click", () => draw(first + PAGE));
window.addEventListener("beforeunload", (event) => {
  if (waiting) event.preventDefault();
});

fetch("images.json").then((answer) => answer.json()).then((found) => {
  images = found;
  count();
  select();
});
