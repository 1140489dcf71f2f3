// Calls with their full prompts, replies and reasoning. These are loaded when the reader opens them.

const ROLE_ORDER = ["solution", "verification", "summary", "experience", "guideline"];
const NOT_CALLED = "No call was made for this candidate in this iteration.";
const NO_TRACE = "The run directory holds no trace of this problem.";
const MEMORY = ["experience", "guideline"];

async function candidatePanel(block, index, t, i) {
  const candidate = index.iterations[t].candidates[i];
  const calls = callsOf(index, t).filter((call) => call.index === i && !MEMORY.includes(call.role));
  if (!candidate) return [h("p", { class: "note" }, "This iteration has no such candidate.")];
  return [
    h(
      "div",
      { class: "candidatehead" },
      h("h3", null, `Candidate ${i}`),
      chip(candidate.mode, candidate.mode),
      candidate.failure ? chip(`failed: ${candidate.failure}`, "failed") : verdictChip(candidate.correct),
      candidate.parents?.length > 0 &&
        h(
          "span",
          null,
          candidate.parents.length > 1 ? "aggregates " : "rewrites ",
          candidate.parents.map(([s, j]) => `${s}/${j}`).join(", "),
        ),
      h("span", null, "answer ", candidate.answer === null ? "none" : answerView(candidate.answer)),
      candidate.rule !== candidate.correct &&
        h("span", { class: "muted small" }, `the rule says ${verdict(candidate.rule).text}`),
      candidate.shown?.length > 0 && h("span", { class: "muted small" }, `was shown ${candidate.shown.join(", ")}`),
      candidate.own_grade != null && h("span", null, "own grade ", gradeChip(candidate.own_grade)),
      h(
        "span",
        { class: "grades" },
        candidate.grades.map(gradeChip),
        h("span", { class: "muted" }, ` mean grade ${number(candidate.mean_grade)}`),
      ),
    ),
    ...(await Promise.all(calls.map((call) => callView(block, call, call.role !== "verification")))),
    calls.length ? null : h("p", { class: "note" }, index.calls.length ? NOT_CALLED : NO_TRACE),
    ...failuresOf(index, t, (key) => key.index === i && !MEMORY.includes(key.role)),
  ];
}

async function callsPanel(block, index, t) {
  const lines = callsOf(index, t).map((call) =>
    lazy([callTitle(call), callFacts(call)], () => callView(block, call, false)),
  );
  return [h("h3", null, `${lines.length} calls`), ...lines, ...failuresOf(index, t, () => true)];
}

function callsOf(index, t) {
  const rank = ({ role }) => (ROLE_ORDER.includes(role) ? ROLE_ORDER.indexOf(role) : ROLE_ORDER.length);
  const calls = index.calls
    .filter((call) => call.iteration === t)
    .map((call) => ({ ...call, messages: index.prompts[call.prompt] }));
  return calls.sort(
    (a, b) => rank(a) - rank(b) || a.role.localeCompare(b.role) || a.index - b.index || offset(a) - offset(b) || a.attempt - b.attempt,
  );
}

const offset = (call) => call.offset ?? 0;

function callTitle(call) {
  const more = call.offset ? `, after ${call.offset} earlier verifications` : "";
  const again = call.attempt ? `, asked again (${call.attempt})` : "";
  return h("b", null, `${capital(call.role)} ${call.index}${more}${again}`);
}

function callFacts(call) {
  const { usage, failure, notes, packing } = call;
  const cached = usage?.cached_prompt_tokens ? `, ${count(usage.cached_prompt_tokens)} cached` : "";
  return h(
    "span",
    { class: "muted small" },
    usage ? ` ${count(usage.prompt_tokens)} tokens in${cached}, ${count(usage.completion_tokens)} out` : "",
    usage ? `, ${number(usage.seconds, 1)} s` : "",
    failure && [" ", chip(failure.reason, "failed", failure.message)],
    notes.map((note) => [" ", chip(note, "none")]),
    packing.length ? [" ", chip("prompt shortened", "undecided")] : null,
  );
}

/** A complete call. `open`: show its replies at once. */
async function callView(block, call, open) {
  const { sampling, packing, failure } = call;
  const replies = await Promise.all(
    call.completions.map((completion, i) => replyView(block, call, completion, i, open)),
  );
  const asked = `model ${call.model}, temperature ${sampling.temperature}, top-p ${sampling.top_p}`;
  const facts = `${asked}, at most ${count(sampling.max_tokens)} tokens, seed ${call.seed ?? "none"}`;
  return h(
    "article",
    { class: "call" },
    h("header", null, callTitle(call), callFacts(call)),
    failure && h("p", { class: "note failed" }, `${failure.reason}: ${failure.message}`),
    replies,
    lazy(
      [
        "Prompt ",
        h("span", { class: "muted small" }, `${count(total(call.messages, "characters"))} characters, ${facts}`),
      ],
      () => promptView(block, call, packing),
    ),
  );
}

function total(parts, name) {
  return parts.reduce((sum, part) => sum + part[name], 0);
}

async function replyView(block, call, completion, i, open) {
  const many = call.completions.length > 1;
  const text = await block.text(completion.text);
  const title = [
    many ? `Reply ${i} ` : "Reply ",
    completion.grade !== undefined &&
      (completion.grade === null ? chip("no grade", "failed") : gradeChip(completion.grade)),
    completion.finish_reason !== "stop" && chip(`finished: ${completion.finish_reason}`, "failed"),
    h("span", { class: "muted small preview" }, open || !text ? "" : text.slice(0, 160)),
  ];
  const reasoning =
    completion.reasoning_characters > 0 &&
    lazy(
      ["Reasoning ", h("span", { class: "muted small" }, `${count(completion.reasoning_characters)} characters`)],
      async () => present(await block.reasoning(call, i), completion.reasoning_characters),
    );
  return lazy(title, async () => h("div", null, present(text, completion.characters), reasoning), open);
}

function present(text, characters) {
  if (text === null)
    return h("p", { class: "note" }, leftOutText(count(characters)));
  return text.trim()
    ? textView(text, `${count(characters)} characters`)
    : h("p", { class: "note" }, "Nothing was written.");
}

/** Says where a text is that was left out: in the report of its problem, or in a growing report with more room. */
function leftOutText(characters) {
  return DATA.growing
    ? `Left out: ${characters} characters. To show them, start tmas view again with a larger max_mb.`
    : `Left out of this file: ${characters} characters. The command above shows them.`;
}

async function promptView(block, call, packing) {
  const steps = packing.map(({ piece, tokens_before, tokens_after }) =>
    h("li", null, `${piece}: ${count(tokens_before)} to ${count(tokens_after)} tokens`),
  );
  const messages = await Promise.all(
    call.messages.map(async (message) => [
      h("p", { class: "muted small" }, message.role),
      present(await block.text(message.text), message.characters),
    ]),
  );
  return h(
    "div",
    null,
    steps.length ? [h("p", { class: "note" }, "Shortened to fit the context:"), h("ul", null, steps)] : null,
    messages,
  );
}

function failuresOf(index, t, wanted) {
  const found = index.failures.filter(({ call }) => call && call.iteration === t && wanted(call));
  return found.map(({ reason, message, call }) =>
    h("p", { class: "note failed" }, `${call.role} ${call.index}, ${reason}: ${message}`),
  );
}

function gradeChip(grade) {
  return chip(
    grade === 0.5 ? "½" : String(grade),
    { 0: "wrong", 0.5: "undecided", 1: "right" }[grade],
    `grade ${grade}`,
  );
}

/** A details element that creates its content when it is first opened. */
function lazy(title, make, open = false) {
  const body = h("div", { class: "inner" });
  const node = h("details", null, h("summary", null, title), body);
  const load = async () => {
    if (!body.hasChildNodes()) body.append(await make());
  };
  node.addEventListener("toggle", () => node.open && load());
  if (open) node.open = true;
  return node;
}
