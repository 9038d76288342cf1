// What a link holds: the tab, the pattern with its parameters, the theme. Runs before the page is drawn, so that the theme is
// right at once.
"use strict";

// The rest of the fragment are the pattern's parameters.
const OWN = ["tab", "pattern", "n", "queries", "shown", "heads", "dim", "type", "theme"];

const link = {
  values: Object.fromEntries(new URLSearchParams(location.hash.slice(1))),
  waits: 0,

  // What is null is left out.
  set(changes) {
    for (const [name, value] of Object.entries(changes)) {
      if (value == null) delete link.values[name];
      else link.values[name] = String(value);
    }
    // Browsers count how often an address changes: while a slider moves it waits.
    clearTimeout(link.waits);
    link.waits = setTimeout(() => history.replaceState(null, "", `#${new URLSearchParams(link.values)}`), 150);
  },

  // The parameters alone.
  parameters: () => Object.fromEntries(Object.entries(link.values).filter(([name]) => !OWN.includes(name))),
};

const theme = {
  dark: () => (link.values.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark",
  show() {
    const { theme: chosen } = link.values;
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
  },
};
theme.show();
// Another link in the place of this one.
onhashchange = () => location.reload();
