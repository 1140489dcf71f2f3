// Tabs and addresses: #SECTION, #problems, #problems/RUN/NUMBER/ITERATION/PANEL.

const main = document.querySelector("main");

function sectionView(section) {
  return [
    section.intro && h("p", { class: "intro" }, section.intro),
    ...section.items.map((item) => h("section", { class: "card" }, itemView(item))),
  ];
}

function markTab(id) {
  document.querySelectorAll("nav.tabs a").forEach((link) => {
    if (link.hash === `#${id}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
}

async function show() {
  const [tab, run, number, iteration, panel] = location.hash.slice(1).split("/");
  const section = DATA.sections.find(({ id }) => id === tab) || DATA.sections[0];
  markTab(section.id);
  const problem = DATA.runs[run]?.problems[number];
  if (section.id !== "problems") main.replaceChildren(h("div", null, sectionView(section)));
  else if (problem?.block) await showProblem(main, run, number, iteration, panel);
  else main.replaceChildren(problemList());
}

function theme() {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("color-scheme").trim() === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
}

function drawTabs() {
  const links = DATA.sections.map(({ id, title }) => h("a", { href: `#${id}` }, title));
  document.querySelector("nav.tabs").replaceChildren(...links);
}

drawTabs();
document.querySelector("button.theme").addEventListener("click", theme);
addEventListener("hashchange", show);
if (DATA.growing) follow();
else show();
