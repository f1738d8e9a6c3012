// Opens the sign-in in a popup, and reloads the page when somebody is signed in. Without it the link works as a link.
"use strict";

const link = document.querySelector("[data-sign-in]");
let popup = null;
let isChecking = false;

// Whatever a message says, the server knows.
async function reloadIfSignedIn() {
  if (isChecking) return;
  isChecking = true;
  try {
    const response = await fetch(link.dataset.me, { cache: "no-store" });
    if ((await response.json()).authenticated) location.reload();
  } finally {
    isChecking = false;
  }
}

link?.addEventListener("click", (event) => {
  popup = window.open(link.dataset.signIn, "imagehub-auth", "popup,width=500,height=700");
  if (popup) event.preventDefault(); // else it was blocked, and the page goes there itself
});

window.addEventListener("message", (event) => {
  if (event.origin !== location.origin || event.source !== popup) return;
  if (event.data?.type === "imagehub-auth") reloadIfSignedIn();
});

if (link) {
  new BroadcastChannel("imagehub-auth").addEventListener("message", (event) => {
    if (event.data?.type === "imagehub-auth") reloadIfSignedIn();
  });
}
