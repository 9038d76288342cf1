// Tabs by the ARIA pattern: one of them can be reached by Tab, arrows go on from it, and choosing shows.
"use strict";

const tabs = {
  all: [...document.querySelectorAll("[role=tab]")],

  // Shows the panel of this name; another name shows the first.
  show(name) {
    const chosen = tabs.all.find((tab) => tab.getAttribute("aria-controls") === name) ?? tabs.all[0];
    for (const tab of tabs.all) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
    for (const heard of tabs.heard) heard(chosen.getAttribute("aria-controls"));
    return chosen;
  },

  // Called with the name of the panel that is shown.
  heard: [],

  open() {
    for (const [n, tab] of tabs.all.entries()) {
      tab.onclick = () => {
        link.set({ tab: tab.getAttribute("aria-controls") });
        tabs.show(tab.getAttribute("aria-controls"));
      };
      tab.onkeydown = ({ key }) => {
        const last = tabs.all.length - 1;
        const to = { ArrowRight: n === last ? 0 : n + 1, ArrowLeft: n === 0 ? last : n - 1, Home: 0, End: last }[key];
        if (to == null) return undefined;
        tabs.all[to].focus();
        tabs.all[to].click();
        return false;
      };
    }
    tabs.show(link.values.tab);
  },
};
