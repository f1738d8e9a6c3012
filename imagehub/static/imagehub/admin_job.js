// Follows the job of this page until it has ended, and then shows the page as it is.
"use strict";

const live = document.getElementById("live");
if (live) {
  const [bar, said, picture] = ["progress", "p", "img"].map((name) => live.querySelector(name));
  const stream = new EventSource(live.dataset.events);
  const words = (job) =>
    [
      job.reason || job.message || job.status,
      job.queue_position ? `place ${job.queue_position}` : "",
      job.eta_seconds ? `${Math.round(job.eta_seconds)} s left` : "",
    ]
      .filter(Boolean)
      .join(", ");
  const show = (event) => {
    const job = JSON.parse(event.data);
    if (job.progress !== undefined) {
      bar.value = job.progress;
      said.textContent = words(job);
    }
    if (["completed", "failed", "cancelled"].includes(job.status)) {
      stream.close();
      location.reload();
    }
  };
  stream.addEventListener("state", show);
  stream.addEventListener("progress", show);
  stream.addEventListener("preview", (event) => {
    picture.src = JSON.parse(event.data).image;
    picture.hidden = false;
  });
}
