// Keeps a list of jobs fresh: the same page is fetched again, and what has changed of it is put in place.
"use strict";

const SECONDS = 3;

const keyOf = (row) => row.querySelector("input[name=_selected_action]")?.value;

function replaceIfOther(old, now) {
  if (old && now && old.innerHTML !== now.innerHTML) old.replaceWith(document.adoptNode(now));
}

async function refresh() {
  if (document.hidden) return;
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (!answer.ok) return;
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
  await refresh().catch(() => {});
  setTimeout(goOn, SECONDS * 1000);
}

setTimeout(goOn, SECONDS * 1000);
