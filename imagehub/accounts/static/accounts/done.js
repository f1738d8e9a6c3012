// The last page of a sign-in: tell the page that opened the popup, then close. It says that something happened, and
// nothing else; who is signed in, the other page asks the server.
"use strict";

const { status, origins } = document.body.dataset;
const message = { type: "imagehub-auth", status };

if (window.opener) {
  for (const origin of origins.split(" ")) {
    window.opener.postMessage(message, origin); // only a page of this origin receives it
  }
}
// Reaches pages of our own origin even where the browser has cut the popup off from its opener.
const channel = new BroadcastChannel("imagehub-auth");
channel.postMessage(message);
channel.close();

window.close(); // does nothing in a window that no script has opened: the sentence is for that
