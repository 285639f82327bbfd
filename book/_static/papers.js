// The filters of the paper atlas. The address keeps them behind "#", as in #leaf=reward-llm&year=2024;
// a plain anchor, as in #reward-llm, shows all papers and goes to that place.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".paper-form");
  if (!form) return;
  const { words, leaf, year, model, evidence, code, chapter, narrow, count } = form.elements;
  const fields = [words, leaf, year, model, evidence, code, chapter, narrow];
  const sections = [...document.querySelectorAll(".paper-list section")];
  const papers = [...document.querySelectorAll(".paper-list li[id]")].map((item) => ({
    item,
    key: item.dataset.key,
    text: [...item.querySelectorAll(".title, .marks, .summary")]
      .map((part) => part.textContent.toLowerCase())
      .join(" "),
  }));
  const holds = (list, value) => !value || list.split("|").includes(value);

  const wanted = ({ item, text }) => {
    const facts = item.dataset;
    return (
      words.value.toLowerCase().split(/\s+/).every((word) => text.includes(word)) &&
      (!year.value || facts.year === year.value) &&
      holds(facts.models, model.value) &&
      holds(facts.evidence, evidence.value) &&
      (!code.checked || "code" in facts) &&
      (!chapter.checked || "chapter" in facts) &&
      !(narrow.checked && "background" in facts)
    );
  };

  const show = () => {
    const found = new Set(papers.filter(wanted).map((paper) => paper.key));
    const shown = new Set();
    for (const section of sections) {
      const here = !leaf.value || section.id === leaf.value;
      let number = 0;
      for (const item of section.querySelectorAll("li")) {
        item.hidden = !(here && found.has(item.dataset.key));
        if (item.hidden) continue;
        shown.add(item.dataset.key);
        number += 1;
      }
      section.hidden = number === 0;
      section.querySelector(".count").textContent = number;
    }
    for (const part of document.querySelectorAll(".paper-direction")) {
      part.hidden = !part.querySelector("section:not([hidden])");
    }
    const all = shown.size === papers.length;
    count.value = `${all ? "" : `${shown.size} of `}${papers.length} papers`;
  };

  const write = () => {
    const set = new URLSearchParams();
    for (const field of fields) {
      const value = field.type === "checkbox" ? field.checked && "1" : field.value.trim();
      if (value) set.set(field.name, value);
    }
    const address = location.href.split("#")[0] + (set.size ? `#${set}` : "");
    history.replaceState(null, "", address);
  };

  const read = () => {
    const place = decodeURIComponent(location.hash.slice(1));
    const set = new URLSearchParams(place.includes("=") ? location.hash.slice(1) : "");
    for (const field of fields) {
      const value = set.get(field.name) ?? "";
      if (field.type === "checkbox") field.checked = value === "1";
      else field.value = value;
      if (field.selectedIndex === -1) field.value = ""; // an option that there is no more
    }
    show();
    if (place && !place.includes("=")) document.getElementById(place)?.scrollIntoView();
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    show();
    write();
  });
  form.addEventListener("reset", () =>
    setTimeout(() => {
      show();
      write();
    }),
  );
  addEventListener("hashchange", read);
  read();
});
