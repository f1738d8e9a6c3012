// The page of one picture: keys, copying, filling the window. Without it the links do the same.
"use strict";

(() => {
  const said = document.querySelector(".said");
  const help = document.querySelector("dialog.keys");
  const links = new Map([...document.querySelectorAll("a[data-key]")].map((link) => [link.dataset.key, link]));

  for (const element of document.querySelectorAll(".needs-script")) element.hidden = false;

  const frame = document.querySelector(".frame");
  ImageHubBlurHash.show(frame, frame.querySelector("img"), frame.dataset.hash);

  // ---- Copying ----

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Without TLS there is no clipboard for scripts; selecting and copying still works.
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "hidden";
      document.body.append(area);
      area.select();
      const isDone = document.execCommand("copy");
      area.remove();
      return isDone;
    }
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    const label = button.textContent;
    button.addEventListener("click", async () => {
      const isDone = await copy(document.getElementById(button.dataset.copy).textContent);
      button.focus();
      button.textContent = isDone ? "Copied" : "Not copied";
      said.textContent = button.textContent;
      setTimeout(() => {
        button.textContent = label;
      }, 1500);
    });
  }

  // ---- Steps: they replace this page, so that "back" leads to the list ----

  for (const [key, link] of links) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      if (key !== "Escape") location.replace(link.href);
      else if (sessionStorage.getItem("gallery") === link.href && history.length > 1) history.back();
      else location.assign(link.href);
    });
  }

  // ---- Keys ----

  function fill() {
    const isFilled = document.body.classList.toggle("filled");
    document.querySelector("button[data-key=f]").setAttribute("aria-pressed", isFilled);
  }

  function showKeys() {
    if (help.open) help.close();
    else help.showModal();
  }

  document.querySelector("button[data-key=f]").addEventListener("click", fill);
  document.querySelector("button[data-key='?']").addEventListener("click", showKeys);
  frame.addEventListener("click", fill);

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input, textarea, select")) return;
    if (event.key === "?") showKeys();
    else if (help.open) return;
    else if (event.key === "f") fill();
    else if (event.key === "Escape" && document.body.classList.contains("filled")) fill();
    else if (links.has(event.key)) links.get(event.key).click();
    else return;
    event.preventDefault();
  });
})();
