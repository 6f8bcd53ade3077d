// Markdown as elements, never as HTML: a text becomes nodes whose content is set as text, so nothing in it can run.
// Headings, lists, quotes, code blocks, and within a line code, strong and emphasis; the rest stays as it is written.

function inline(place, text) {
  const parts = /(`+)([^`]+)\1|\*\*([^*\n]+)\*\*|(?<![\w*])\*([^*\s][^*\n]*)\*(?![\w*])/g;
  let last = 0;
  for (const one of text.matchAll(parts)) {
    place.append(text.slice(last, one.index));
    place.append(one[2] ? make("code", "", one[2]) : one[3] ? make("strong", "", one[3]) : make("em", "", one[4]));
    last = one.index + one[0].length;
  }
  place.append(text.slice(last));
}

/** The nodes of a text in Markdown; a code block that has not ended reaches to the end. */
function markdown(text) {
  const nodes = [], lines = text.split("\n");
  let paragraph = [];
  const flush = () => {
    if (!paragraph.length) return;
    const element = make("p");
    inline(element, paragraph.join("\n"));
    nodes.push(element);
    paragraph = [];
  };
  for (let row = 0; row < lines.length; row++) {
    const line = lines[row], fence = /^ {0,3}(```+|~~~+)/.exec(line), heading = /^(#{1,6}) +(.+)$/.exec(line);
    const item = /^ *(?:([-*+])|\d+[.)]) +(.*)$/.exec(line), quote = /^> ?(.*)$/.exec(line);
    if (fence) {
      flush();
      const code = [];
      while (++row < lines.length && !lines[row].trim().startsWith(fence[1])) code.push(lines[row]);
      const block = make("pre");
      block.tabIndex = 0;
      block.append(make("code", "", code.join("\n")));
      nodes.push(block);
    } else if (heading) {
      flush();
      const element = make("h4");
      inline(element, heading[2]);
      nodes.push(element);
    } else if (item || quote) {
      flush();
      const kind = quote ? "BLOCKQUOTE" : item[1] ? "UL" : "OL", before = nodes[nodes.length - 1];
      const list = before && before.tagName === kind ? before : make(kind);
      if (list !== before) nodes.push(list);
      const element = make(quote ? "div" : "li");
      inline(element, quote ? quote[1] : item[2]);
      list.append(element);
    } else if (line.trim() === "") flush();
    else paragraph.push(line);
  }
  flush();
  return nodes;
}
