// Conversations, kept in this browser alone: each under a key of its own, so that two windows lose nothing.

const KEPT = "maquette.conversation.";
let conversation = null;

/** {id, model, system, turns: [{role, content, ids?, open?}], at}; `open`: an answer that was still being written. */
function begin() {
  conversation = { id: `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`, turns: [], at: Date.now() };
}

function keep() {
  if (!conversation.turns.length) return;
  conversation.model = chosen().id;
  conversation.system = at("system").value;
  conversation.at = Date.now();
  try {
    localStorage.setItem(KEPT + conversation.id, JSON.stringify(conversation));
    sessionStorage.setItem(`${KEPT}open`, conversation.id);
  } catch { /* full, or not allowed: the page goes on without */ }
}

function recall(id) {
  try { return JSON.parse(localStorage.getItem(KEPT + id)); } catch { return null; }
}

function conversations() {
  const all = [];
  try {
    for (let place = 0; place < localStorage.length; place++) {
      const key = localStorage.key(place);
      const one = key.startsWith(KEPT) ? recall(key.slice(KEPT.length)) : null;
      if (one && Array.isArray(one.turns) && one.turns.length) all.push(one);
    }
  } catch { /* not allowed */ }
  return all.sort((a, b) => b.at - a.at);
}

function forget(id) {
  try { localStorage.removeItem(KEPT + id); } catch { /* not allowed */ }
}

function list() {
  const rows = conversations().map((one) => {
    const row = make("li"), open = make("button", "open", one.turns[0].content.slice(0, 60) || "(empty)");
    const remove = make("button", "remove", "×");
    open.setAttribute("aria-current", String(one.id === conversation.id));
    open.onclick = () => { if (!at("send").disabled) resume(one.id); };
    remove.setAttribute("aria-label", `Delete the conversation: ${open.textContent}`);
    remove.onclick = () => {
      if (at("send").disabled) return;
      forget(one.id);
      if (one.id === conversation.id) { begin(); drawConversation(); } else list();
    };
    row.append(open, remove);
    return row;
  });
  at("conversations").replaceChildren(...rows);
  at("for-conversations").hidden = !rows.length;
}
