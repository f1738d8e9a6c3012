// Selects all pictures of a page, and says how many are selected. Enter on one of them decides nothing.
"use strict";

const form = document.getElementById("review");
if (form) {
  const all = document.getElementById("select-all");
  const boxes = [...form.querySelectorAll("input[name=item]")];
  const said = document.getElementById("selected");
  const tell = () => {
    const count = boxes.filter((box) => box.checked).length;
    all.checked = count === boxes.length;
    all.indeterminate = count > 0 && count < boxes.length;
    said.textContent = `${count} of ${boxes.length} selected`;
  };
  all.addEventListener("change", () => {
    for (const box of boxes) box.checked = all.checked;
    tell();
  });
  form.addEventListener("change", (event) => {
    if (event.target.name === "item") tell();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches("input[type=checkbox]")) event.preventDefault();
  });
  all.closest("label").hidden = false;
  tell();
}
