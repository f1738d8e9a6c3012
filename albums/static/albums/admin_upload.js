// Sends pictures to the API, in as few requests as its limits allow, and says of each file what became of it.
"use strict";

(() => {
  const form = document.getElementById("upload");
  const chooser = document.getElementById("files");
  const progress = document.getElementById("progress");
  const bar = progress.querySelector("progress");
  const said = progress.querySelector("p");
  const table = document.getElementById("outcomes");
  const button = form.querySelector("[type=submit]");
  const [mostFiles, mostBytes, mostFileBytes] = ["files", "bytes", "fileBytes"].map((name) => Number(form.dataset[name]));
  const PARTS = 4096; // bytes of a request beside the files, generously

  function requests(files) {
    const batches = [];
    let [batch, bytes] = [[], 0];
    for (const file of files) {
      if (batch.length && (batch.length === mostFiles || bytes + file.size + PARTS > mostBytes)) {
        batches.push(batch);
        [batch, bytes] = [[], 0];
      }
      batch.push(file);
      bytes += file.size + PARTS;
    }
    if (batch.length) batches.push(batch);
    return batches;
  }

  function show(name, content, isGood) {
    const row = table.tBodies[0].insertRow();
    row.className = isGood ? "stored" : "refused";
    row.insertCell().textContent = name;
    row.insertCell().append(content);
    table.hidden = false;
  }

  function linkTo(image) {
    const link = document.createElement("a");
    link.href = form.dataset.page.replace("00000000-0000-0000-0000-000000000000", image.id);
    link.textContent = `stored, ${image.width} × ${image.height}`;
    return link;
  }

  function send(files, sent, total) {
    const body = new FormData();
    for (const file of files) body.append("files", file);
    for (const name of ["album", "visibility"]) if (form.elements[name].value) body.append(name, form.elements[name].value);
    return new Promise((resolve) => {
      const request = new XMLHttpRequest();
      request.open("POST", form.action);
      request.setRequestHeader("X-CSRFToken", form.elements.csrfmiddlewaretoken.value);
      request.responseType = "json";
      request.upload.addEventListener("progress", (event) => {
        bar.value = total ? (sent + event.loaded) / total : 0;
        if (event.loaded === event.total) said.textContent = "Sent. The pictures are being checked.";
      });
      request.addEventListener("loadend", () => resolve({ status: request.status, answer: request.response }));
      request.send(body);
    });
  }

  function tell(files, { status, answer }) {
    if (answer?.results) {
      let stored = 0;
      for (const result of answer.results) {
        if (result.image) stored += 1;
        show(result.name, result.image ? linkTo(result.image) : result.error.detail, Boolean(result.image));
      }
      return stored;
    }
    const reason = answer?.detail ?? (status ? `The server answered ${status}.` : "The connection broke.");
    const wait = answer?.retry_after ? ` Try again in ${Math.ceil(answer.retry_after / 60)} minutes.` : "";
    for (const file of files) show(file.name, reason + wait, false);
    return 0;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const files = [...chooser.files];
    if (!files.length) return;
    button.disabled = true;
    progress.hidden = false;
    bar.value = 0;
    said.textContent = "Sending.";
    table.tBodies[0].replaceChildren();
    const fitting = files.filter((file) => file.size <= mostFileBytes);
    for (const file of files) if (!fitting.includes(file)) show(file.name, "The file is too large.", false);
    const total = fitting.reduce((sum, file) => sum + file.size, 0);
    let [sent, stored] = [0, 0];
    for (const batch of requests(fitting)) {
      stored += tell(batch, await send(batch, sent, total));
      sent += batch.reduce((sum, file) => sum + file.size, 0);
    }
    bar.value = 1;
    said.textContent = `${stored} of ${files.length} stored.`;
    button.disabled = false;
    chooser.value = "";
  });

  const drop = form.querySelector(".drop");
  for (const kind of ["dragover", "dragenter"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    chooser.files = event.dataTransfer.files;
  });
})();
