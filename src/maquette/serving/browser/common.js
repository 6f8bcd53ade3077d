// What all parts of the page share: elements, requests, the settings of sampling.

const at = (id) => document.getElementById(id);
const make = (kind, className, text) => {
  const element = document.createElement(kind);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
let state = { models: [] };

const chosen = () => state.models.find((one) => one.id === at("model").value) || state.models[0];
const percent = (share) => share === 0 ? "0" : share < 0.0001 ? "<.01%" : `${(100 * share).toFixed(share < 0.001 ? 2 : 1)}%`;
const parameters = (count) => count >= 1e6 ? `${(count / 1e6).toFixed(1)} million` : count.toLocaleString("en");

/** Narrow windows: settings are folded, and hints that speak of keys are left out. */
const narrow = window.matchMedia("(max-width: 48rem)");
const hint = (words, keys) => narrow.matches ? words : `${words} (${keys})`;

/** Puts the cursor where one writes next, but where that would bring up a keyboard over what was just answered. */
function writeNext(box) {
  if (!window.matchMedia("(pointer: coarse)").matches) at(box).focus();
}

function sampling() {
  const values = { temperature: Number(at("temperature").value), top_p: Number(at("top_p").value) };
  for (const name of ["max_tokens", "seed"]) if (at(name).value !== "") values[name] = Number(at(name).value);
  return values;
}

/** Sends a request; calls `each` with every event of the stream. Errors are the server's words. */
async function pour(address, body, each, signal) {
  const answer = await fetch(address, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    const error = new Error(problem.error ? problem.error.message : `The server answers ${answer.status}.`);
    error.code = problem.error && problem.error.code;
    throw error;
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") continue;
      const piece = JSON.parse(data);
      if (piece.error) throw new Error(piece.error.message);
      each(piece);
    }
  }
}

async function post(address, body, signal) {
  const answer = await fetch(address, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ? value.error.message : `The server answers ${answer.status}.`);
  return value;
}

function complain(place, error, remedy) {
  const box = make("div", "error", error.message);
  box.setAttribute("role", "alert");
  if (remedy) { box.append(document.createElement("br")); box.append(remedy); }
  place.append(box);
  place.scrollTop = place.scrollHeight;
}
