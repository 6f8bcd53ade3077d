// The arena: two models, blindly; and what the votes say so far.

const ASKED = "maquette.arena.prompt";

/** Keeps the prompt until its vote: after a reload, which ends a battle, it stands in the box again. */
function keepPrompt(words) {
  try { if (words) sessionStorage.setItem(ASKED, words); else sessionStorage.removeItem(ASKED); } catch { /* not allowed */ }
}
try { at("challenge-words").value = sessionStorage.getItem(ASKED) || ""; } catch { /* not allowed */ }

at("challenge").onsubmit = async (event) => {
  event.preventDefault();
  const words = at("challenge-words").value;
  if (!words.trim() || at("begin").disabled) return;
  at("begin").disabled = true;
  keepPrompt(words);
  const place = at("fight"), asked = make("div", "turn user");
  asked.append(make("p", "message", words));
  place.replaceChildren(asked);
  const sides = make("div", "sides"), views = {};
  for (const side of ["a", "b"]) {
    const card = make("article", "side");
    const title = make("h2", "", side === "a" ? "Answer A" : "Answer B"), message = make("div", "message plain");
    card.append(title, message);
    sides.append(card);
    views[side] = { card, title, message };
  }
  place.append(sides);
  try {
    const { battle } = await post("/arena/battle", { messages: [{ role: "user", content: words }] });
    await Promise.all(["a", "b"].map((side) =>
      pour("/arena/answer", { battle, side, ...sampling() }, (piece) => views[side].message.append(piece.text))));
    for (const { message } of Object.values(views)) {
      const answer = message.textContent;
      message.replaceChildren(...(answer ? markdown(answer) : [make("em", "", "(an empty answer)")]));
      message.classList.remove("plain");
    }
    at("challenge-words").value = "";
    const verdict = make("div", "verdict");
    verdict.setAttribute("role", "group");
    verdict.setAttribute("aria-label", "Which answer is better?");
    verdict.tabIndex = -1;
    for (const [winner, text] of [["a", "A is better"], ["tie", "Both are good"], ["tie (bothbad)", "Both are bad"], ["b", "B is better"]]) {
      const button = make("button", "", text);
      button.onclick = async () => {
        for (const other of verdict.children) other.disabled = true;
        try {
          const reply = await post("/arena/vote", { battle, winner, judge: at("judge").value });
          keepPrompt("");
          for (const side of ["a", "b"]) views[side].title.append(`: ${reply.models[side]}`);
          if (winner in views) views[winner].card.classList.add("won");
          verdict.replaceChildren(make("p", "note", `Written down: ${reply.votes} ${reply.votes === 1 ? "vote" : "votes"} so far.`));
          if (at("ratings").open) rate();
        } catch (error) { complain(place, error); }
        writeNext("challenge-words");
      };
      verdict.append(button);
    }
    place.append(verdict);
    verdict.focus({ preventScroll: true });  // the next Tab is at the first button
  } catch (error) { complain(place, error); }
  at("begin").disabled = false;
};

/** The ratings of the votes so far, each with its interval; those whose intervals overlap may be equally good. */
async function rate() {
  const { models, why } = await (await fetch("/arena/ratings")).json();
  at("rated").replaceChildren();
  if (models.length) {
    const table = make("table"), head = make("tr");
    for (const name of ["model", "rating", "90% interval", "battles"]) {
      const cell = make("th", "", name);
      cell.scope = "col";
      head.append(cell);
    }
    table.append(head);
    for (const one of models) {
      const row = make("tr");
      const interval = one.interval ? one.interval.map((end) => end.toFixed(0)).join(" to ") : "not known yet";
      for (const cell of [one.name, one.rating.toFixed(0), interval, one.battles]) row.append(make("td", "", String(cell)));
      table.append(row);
    }
    at("rated").append(table);
  }
  if (why) at("rated").append(make("p", "note", why));
}
at("ratings").ontoggle = () => { if (at("ratings").open) rate(); };
