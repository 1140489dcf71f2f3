// Reads the data in the page. A problem's block is lines of base64 over zlib over JSON: an index, then units of text
// and reasoning. A line is inflated when it is first requested. Only the open problem is kept.

const DATA = JSON.parse(document.getElementById("data").textContent);

async function inflated(line) {
  const bytes = Uint8Array.from(atob(line), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

class Block {
  constructor(text) {
    this.lines = text.trim().split("\n");
    this.inflated = new Map();
  }

  part(place) {
    if (!this.inflated.has(place)) this.inflated.set(place, inflated(this.lines[place]));
    return this.inflated.get(place);
  }

  index() {
    return this.part(0);
  }

  /** The lines and texts of a unit, or null if it was left out. */
  async unit(unit) {
    const place = (await this.index()).units[unit];
    return place === undefined ? null : this.part(place);
  }

  /** The text at [unit, number], joined from its runs of lines, or null if a part of it was left out. */
  async text([unit, number]) {
    const home = await this.unit(unit);
    if (home === null) return null;
    const pieces = [];
    for (const [source, start, length] of home.texts[number]) {
      const from = await this.unit(source);
      if (from === null) return null;
      pieces.push(from.lines.slice(start, start + length).join("\n"));
    }
    return pieces.join("\n");
  }

  /** The reasoning of a call's completion, or null if it was left out. */
  async reasoning(call, completion) {
    return call.reasoning === undefined ? null : (await this.part(call.reasoning))[completion];
  }
}

const parsed = new Promise((done) => {
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", done);
  else done();
});
let opened = { id: null, block: null };

/** The lines of a block: in the page, or from the server of a growing report. */
async function textOf(id) {
  const element = document.getElementById(id);
  return element ? element.textContent : (await fetch(`block/${id}`)).text();
}

/** The block of a problem. Waits until the page is parsed, because the blocks come last in the file. */
async function blockOf(id) {
  await parsed;
  if (opened.id !== id) opened = { id, block: new Block(await textOf(id)) };
  return opened.block;
}
