// The next token: a text token by token, coloured by the entropy of the prediction or by surprise; at any place the ten
// likeliest with bars, which another choice branches from; two models beside each other.

let seen = null, sourceModel = null, trail = [], looking = null, writing = null, sliding = 0;

const secondModel = () => state.models.find((one) => one.id === at("second").value);

/** Looks at `asked` ({text}, {messages} or {ids}); the prediction is the one behind its first `place` tokens. */
async function lookAt(asked, place) {
  if (looking) looking.abort();
  looking = new AbortController();
  const { signal } = looking;
  const first = sourceModel || chosen();
  const beams = Number(at("beams").value);
  const body = { model: first.id, ...asked, ...sampling(), beams };
  if (place) body.place = place;
  try {
    const one = await post("/api/next", body, signal);
    const other = secondModel();
    let beside = null;
    if (other) {
      const ids = one.tokens.slice(0, one.place).map((token) => token.id);
      const same = other.tokenizer === first.tokenizer ? { ids } : { text: one.before };
      beside = await post("/api/next", { model: other.id, ...same, ...sampling(), beams }, signal);
    }
    seen = one;
    at("token-error").replaceChildren();
    drawTokens();
    drawPredictions([[first.id, one], ...(beside ? [[other.id, beside]] : [])]);
  } catch (error) {
    if (error.name === "AbortError") return;
    at("token-error").replaceChildren();
    complain(at("token-error"), error);
  }
}

const idsBefore = (place) => seen.tokens.slice(0, place).map((token) => token.id);
const lookAgain = (place) => seen && lookAt({ ids: seen.tokens.map((token) => token.id) }, place || seen.place);

function drawTokens() {
  const measure = at("colour").value, scale = measure === "entropy" ? 8 : 10;
  const spans = seen.tokens.map((token, index) => {
    const span = make("span", token.special ? "token special" : "token", token.text.trim() ? token.text : token.shown);
    if (token.text.includes("\n")) span.textContent = token.text.replaceAll("\n", "⏎\n");
    const value = token[measure];
    if (value !== null) span.style.background = `color-mix(in srgb, var(--accent) ${Math.round(65 * Math.min(1, value / scale))}%, transparent)`;
    place(span, index, value === null ? token.shown
      : `${token.shown}, surprise ${token.surprise.toFixed(1)} bits, entropy before it ${token.entropy.toFixed(1)} bits`);
    return span;
  });
  const end = make("span", "token end", "▏");
  place(end, seen.tokens.length, "what comes next");
  at("token-text").replaceChildren(...spans, end);
}

/** Makes an element the choice of the place before token `index`. */
function place(element, index, label) {
  const selected = index === seen.place;
  element.setAttribute("role", "option");
  element.setAttribute("aria-selected", String(selected));
  element.setAttribute("aria-label", label);
  element.title = label;
  element.tabIndex = selected ? 0 : -1;
  element.dataset.place = index;
}

async function select(index, focus) {
  await lookAgain(Math.max(1, Math.min(seen.tokens.length, index)));
  if (focus) at("token-text").querySelector("[aria-selected=true]")?.focus();
}

function drawPredictions(predictions) {
  const top = Math.max(...predictions.flatMap(([, one]) => one.candidates.map((token) => Math.max(token.probability, token.drawn))));
  const actual = seen.tokens[seen.place];
  at("predictions").replaceChildren(...predictions.map(([name, one], column) => {
    const card = make("section", "prediction"), rows = make("ol");
    card.setAttribute("aria-label", `Next token by ${name}`);
    card.append(make("h3", "", name));
    card.append(make("p", "note", `Entropy ${one.entropy.toFixed(2)} bits: as unsure as among ${Math.round(2 ** one.entropy).toLocaleString("en")} equally likely tokens.`));
    for (const token of one.candidates) {
      const row = make("li"), button = make("button", "candidate");
      const written = actual && column === 0 && token.id === actual.id;
      button.append(make("span", "name", token.shown), bar("model", token.probability / top), bar("drawn", token.drawn / top),
        make("span", "share", percent(token.probability)), make("span", "share drawn", percent(token.drawn)));
      button.setAttribute("aria-label", `${token.shown}: ${percent(token.probability)}, drawn with ${percent(token.drawn)}${written ? ", written here" : ""}`);
      if (written) button.classList.add("written");
      button.disabled = column > 0 && predictions[0][1].candidates.every((other) => other.id !== token.id || other.shown !== token.shown);
      button.onclick = () => branch([token.id]);
      row.append(button);
      rows.append(row);
    }
    card.append(rows, make("p", "note", `All others: ${percent(one.others)}.`), truncations(one));
    if ((one.tree || []).length) card.append(tree(one.tree, column > 0 && secondModel().tokenizer !== (sourceModel || chosen()).tokenizer));
    return card;
  }));
  at("token-status").textContent = `Behind token ${seen.place}: ${predictions.map(([name, one]) => `${name} finds ${one.candidates[0].shown} likeliest, ${percent(one.candidates[0].probability)}`).join("; ")}`;
  at("undo").disabled = !trail.length;
}

function bar(kind, share) {
  const element = make("span", `bar ${kind}`);
  element.style.inlineSize = `${(100 * share).toFixed(1)}%`;
  return element;
}

function truncations(one) {
  const table = make("table"), head = make("tr");
  for (const name of ["what is left", "tokens", "holding", "bits"]) {
    const cell = make("th", "", name);
    cell.scope = "col";
    head.append(cell);
  }
  table.append(head);
  for (const row of one.truncations) {
    const line = make("tr");
    for (const cell of [row.setting, row.tokens.toLocaleString("en"), percent(row.probability), row.entropy.toFixed(2)]) line.append(make("td", "", cell));
    table.append(line);
  }
  return table;
}

/** The likeliest continuations, what they share once; a choice takes the branch up to there, unless it is only `shown`. */
function tree(branches, shown) {
  const part = make("section", "tree"), heading = make("h4", "", "Likeliest continuations");
  part.setAttribute("aria-label", heading.textContent);
  const grow = (some, before) => {
    const list = make("ul");
    for (const one of some) {
      const row = make("li"), button = make("button", one.best ? "branch best" : "branch"), ids = [...before, ...one.ids];
      button.append(make("span", "name", one.shown), make("span", "share", percent(one.probability)));
      if (one.whole !== null) button.append(make("span", "share whole", `${one.best ? "✓ likeliest, " : ""}${percent(one.whole)} in all`));
      button.setAttribute("aria-label", `${one.shown}: ${percent(one.probability)}${one.whole === null ? "" : `, ${percent(one.whole)} in all`}${one.best ? ", on the likeliest" : ""}`);
      button.disabled = shown;
      button.onclick = () => branch(ids);
      row.append(button);
      if (one.branches.length) row.append(grow(one.branches, ids));
      list.append(row);
    }
    return list;
  };
  part.append(heading, grow(branches, []));
  part.onkeydown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key], all = [...part.querySelectorAll(".branch")];
    const next = all[all.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  };
  return part;
}

/** Takes other tokens at the place: what stood behind it is dropped, and can be had back with Undo. */
async function branch(more) {
  if (writing) return;
  trail.push({ ids: seen.tokens.map((token) => token.id), place: seen.place });
  await lookAt({ ids: [...idsBefore(seen.place), ...more] });
  at("predictions").querySelector("button")?.focus();
}

/** Lets the model write on behind the place. */
async function writeOn() {
  if (!seen || writing) return;
  trail.push({ ids: seen.tokens.map((token) => token.id), place: seen.place });
  const ids = idsBefore(seen.place), start = ids.length, settings = sampling();
  writing = new AbortController();
  at("write-on").hidden = true;
  at("stop-writing").hidden = false;
  for (const span of [...at("token-text").children].slice(start)) span.remove();
  try {
    await pour("/v1/completions", {
      model: (sourceModel || chosen()).id, prompt: ids, stream: true, logprobs: true, max_tokens: 40, ...settings,
    }, (event) => {
      const choice = event.choices[0];
      for (const token of choice.logprobs ? choice.logprobs.content : []) ids.push(token.id);
      if (choice.text) at("token-text").append(make("span", "token", choice.text));
    }, writing.signal);
  } catch (error) {
    if (error.name !== "AbortError") complain(at("token-error"), error);
  }
  writing = null;
  at("write-on").hidden = false;
  at("stop-writing").hidden = true;
  if (ids.length > start) await lookAt({ ids });
  else trail.pop();
  at("write-on").focus();
}

async function undo() {
  const before = trail.pop();
  if (before && !writing) await lookAt({ ids: before.ids }, before.place);
}

at("look").onsubmit = (event) => {
  event.preventDefault();
  const text = at("token-words").value, one = chosen();
  sourceModel = one;
  trail = [];
  lookAt(one.assistant && text ? { messages: [{ role: "user", content: text }] } : { text });
};
at("token-text").onclick = (event) => {
  const index = event.target.dataset.place;
  if (index !== undefined && !writing) select(Number(index), true);
};
at("token-text").onkeydown = (event) => {
  const index = Number(event.target.dataset.place), last = seen ? seen.tokens.length : 0;
  const next = { ArrowLeft: index - 1, ArrowUp: index - 1, ArrowRight: index + 1, ArrowDown: index + 1, Home: 1, End: last }[event.key];
  if (next === undefined || writing) return;
  event.preventDefault();
  select(next, true);
};
at("write-on").onclick = writeOn;
at("stop-writing").onclick = () => writing && writing.abort();
at("undo").onclick = undo;
at("colour").onchange = () => seen && drawTokens();
at("second").onchange = () => lookAgain();
at("beams").onchange = () => lookAgain();

function resample() {
  clearTimeout(sliding);
  if (seen && !at("tokens").hidden) sliding = setTimeout(() => lookAgain(), 60);
}
