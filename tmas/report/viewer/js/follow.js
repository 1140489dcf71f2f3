// Follows a run that `tmas view` serves. The first tab is its status. The other tabs are its report, which the server
// makes again when more problems are finished. A tab that is being read is not redrawn until the reader asks for it.

const STATUS_SECONDS = 2;
const following = { status: null, report: null };
const notices = { status: null, report: null }; // what is wrong with each of the two

function follow() {
  poll("status", STATUS_SECONDS, (section) => {
    const first = following.status === null; // the report may have come before it
    following.status = section;
    redraw(first || visible() === section.id);
  });
  poll("report", DATA.every, (report) => {
    const first = following.report === null;
    following.report = report;
    opened = { id: null, block: null };
    redraw(first);
    if (!first && visible() !== "status") offerNewData();
  });
}

/** Asks for `path` again and again, and calls `accept` with its JSON whenever that has changed. */
async function poll(path, seconds, accept) {
  let version = null;
  while (true) {
    let changed = null;
    try {
      const response = await fetch(path, { cache: "no-store", headers: version ? { "If-None-Match": version } : {} });
      const body = await response.text();
      if (response.ok) {
        version = response.headers.get("ETag");
        changed = JSON.parse(body);
      }
      const refused = !response.ok && response.status !== 304; // such as for a damaged file; the body names it
      notice(path, refused ? `The server answered with status ${response.status}: ${body}` : null);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // fetch raises a TypeError if there is no connection
      notice(path, "No connection: tmas view has ended.");
    }
    try {
      if (changed !== null) accept(changed);
    } catch (error) {
      notice(path, `The page cannot show the ${path} and no longer follows it: ${error.message}`);
      throw error;
    }
    await new Promise((done) => setTimeout(done, 1000 * seconds));
  }
}

function visible() {
  return document.querySelector("nav.tabs a[aria-current]")?.hash.slice(1);
}

function redraw(now) {
  DATA.sections = [following.status, ...(following.report?.sections ?? [])].filter((section) => section);
  DATA.runs = following.report?.runs ?? [];
  const shown = visible();
  drawTabs();
  if (now && DATA.sections.length) {
    current.address = null;
    show();
  } else markTab(shown);
}

function offerNewData() {
  document.querySelector("button.fresh")?.remove();
  const button = h("button", { type: "button", class: "fresh", onclick: () => accept() }, "New data: show");
  const accept = () => {
    button.remove();
    current.address = null;
    show();
  };
  document.querySelector("nav.tabs").after(button);
}

/** Shows what is wrong with `path`, or removes it if `text` is null. */
function notice(path, text) {
  notices[path] = text;
  const shown = notices.status ?? notices.report;
  const before = document.querySelector("p.connection");
  if (before?.textContent === shown) return;
  before?.remove();
  if (shown) document.querySelector("header.top").after(h("p", { class: "note connection", role: "status" }, shown));
}
