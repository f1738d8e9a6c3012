// The order of an album: rows are dragged, or moved by buttons, and their positions follow. Without this script the
// positions are numbers to type.
"use strict";

addEventListener("DOMContentLoaded", () => {
  const body = document.querySelector("#memberships-group tbody");
  if (!body) return;
  const rows = () => [...body.querySelectorAll("tr.has_original")];
  const position = (row) => row.querySelector(".field-position input");

  /** Give the rows, as they stand, the positions that there are; equal ones grow apart. */
  function renumber() {
    const values = rows().map((row) => Number(position(row).value)).sort((one, other) => one - other);
    let last = -1;
    rows().forEach((row, index) => {
      last = Math.max(last + 1, values[index]);
      position(row).value = last;
    });
  }

  function move(row, step) {
    const all = rows();
    const other = all[all.indexOf(row) + step];
    if (!other) return;
    if (step < 0) other.before(row);
    else other.after(row);
    renumber();
  }

  let dragged = null;

  function equip(row) {
    const cell = row.querySelector(".field-position");
    const grip = document.createElement("span");
    grip.className = "grip";
    grip.textContent = "⠿ ";
    grip.title = "Drag to another place";
    grip.setAttribute("aria-hidden", "true");
    grip.addEventListener("pointerdown", (event) => {
      dragged = row;
      row.classList.add("dragged");
      event.preventDefault();
    });
    cell.prepend(grip);
    for (const [step, sign, name] of [[-1, "↑", "Move up"], [1, "↓", "Move down"]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "move";
      button.textContent = sign;
      button.setAttribute("aria-label", name);
      button.addEventListener("click", () => {
        move(row, step);
        button.focus();
      });
      cell.append(" ", button);
    }
  }

  rows().forEach(equip);

  // On the document, because a row that changes its place loses the pointer.
  document.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    const over = document.elementFromPoint(event.clientX, event.clientY)?.closest("tr.has_original");
    if (!over || over === dragged || over.parentElement !== body) return;
    const box = over.getBoundingClientRect();
    if (event.clientY < box.top + box.height / 2) over.before(dragged);
    else over.after(dragged);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    document.addEventListener(end, () => {
      if (!dragged) return;
      dragged.classList.remove("dragged");
      dragged = null;
      renumber();
    });
  }
});
