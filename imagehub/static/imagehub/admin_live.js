// Keeps a page of the admin fresh: it is fetched again, and what has changed of it is put in place. A page that names another
// address in `data-live-from` finds its parts there.
"use strict";

const SECONDS = 3;

const source = document.querySelector("[data-live-from]")?.dataset.liveFrom ?? location.href;
const lost = document.querySelector("[data-live-lost]");
const keyOf = (row) => row.querySelector("input[name=_selected_action]")?.value;

function replaceIfOther(old, now) {
  // Not under the hands of somebody who is about to press a button in it.
  if (!old || !now || old.innerHTML === now.innerHTML || old.contains(document.activeElement)) return;
  old.replaceWith(document.adoptNode(now));
}

async function refresh() {
  const answer = await fetch(source, { credentials: "same-origin" });
  // Who was signed out meanwhile is led to another page.
  if (!answer.ok || answer.redirected) throw new Error(answer.statusText);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live][id]")) replaceIfOther(part, fresh.getElementById(part.id));
  const rows = new Map([...fresh.querySelectorAll("#result_list tbody tr")].map((row) => [keyOf(row), row]));
  for (const row of document.querySelectorAll("#result_list tbody tr")) {
    const now = rows.get(keyOf(row));
    for (const cell of now ? row.querySelectorAll("td[class*=field-]") : []) {
      const name = [...cell.classList].find((word) => word.startsWith("field-"));
      replaceIfOther(cell, now.querySelector(`td.${name}`));
    }
  }
}

async function goOn() {
  if (!document.hidden) {
    const isLost = await refresh().then(() => false, () => true);
    if (lost) lost.hidden = !isLost;
  }
  setTimeout(goOn, SECONDS * 1000);
}

setTimeout(goOn, SECONDS * 1000);
