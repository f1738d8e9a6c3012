// Lists of pictures: rows of equal height, the next pages as somebody scrolls, placeholders. All of it is extra: without
// this script the style sheet makes the rows, and "More" is a link.
"use strict";

(() => {
  const STEP = 1.06; // as in albums/pages/tiles.py
  const NARROWEST = -16;
  const WIDEST = 20;
  const TINY = 256;
  const ROWS_IN_CHUNK = 8;
  const TALLEST = 1.5; // of what a row should have; an unfinished row is not stretched beyond
  const AHEAD = 1600; // pixels below the window at which the next page is asked for
  const PAGE = 120;

  const list = document.querySelector(".pictures");
  const said = document.querySelector(".said");
  const more = document.querySelector(".pages [rel=next]");

  // ---- Placeholders: only near the window, and gone with the picture's arrival ----

  const nearby = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        nearby.unobserve(target);
        const image = target.querySelector("img");
        ImageHubBlurHash.show(image.parentElement, image, target.dataset.hash);
      }
    },
    { rootMargin: "600px" },
  );

  function watch(element) {
    const image = element.querySelector("img");
    if (image.complete && image.naturalWidth) return;
    if (ImageHubBlurHash.isValid(element.dataset.hash)) nearby.observe(element);
  }

  document.querySelectorAll("[data-hash]").forEach(watch);
  if (!list) return;

  // ---- Rows ----

  const tiles = [];
  let chunks = []; // each an element, and the number of its first tile
  let width = 0;

  const shapeOf = (element) => STEP ** Number(/\br(-?\d+)\b/.exec(element.className)[1]);

  function measures() {
    const style = getComputedStyle(list);
    return { row: parseFloat(style.getPropertyValue("--row")), gap: parseFloat(style.getPropertyValue("--gap")) };
  }

  /** Divide tiles into rows as wide as the list: each takes one more picture or not, whatever lies nearer to its height. */
  function rowsFrom(first, { row, gap }) {
    const rows = [];
    let [start, shapes] = [first, 0];
    const height = (sum, count) => (width - gap * (count - 1)) / sum;
    for (let index = first; index < tiles.length; index += 1) {
      const count = index - start;
      const withIt = height(shapes + tiles[index].shape, count + 1);
      const without = count ? height(shapes, count) : Infinity;
      if (withIt < row && without / row < row / withIt) {
        rows.push({ start, end: index, height: Math.min(without, row * TALLEST), isFull: without <= row * TALLEST });
        [start, shapes] = [index, 0];
      }
      shapes += tiles[index].shape;
    }
    if (start < tiles.length) {
      const fit = height(shapes, tiles.length - start);
      rows.push({ start, end: tiles.length, height: Math.min(fit, row), isFull: fit <= row });
    }
    return rows;
  }

  function placeRow({ start, end, height, isFull }, gap) {
    const tall = Math.round(height);
    let left = width - gap * (end - start - 1);
    for (let index = start; index < end; index += 1) {
      const isLast = index === end - 1;
      const wide = isLast && isFull ? left : Math.min(left, Math.round(tiles[index].shape * height));
      left -= wide;
      tiles[index].element.style.width = `${wide}px`;
      tiles[index].element.style.height = `${tall}px`;
    }
    return tall;
  }

  /** Put the tiles from the last chunk on into rows, and the rows into chunks that a browser need not draw when far off. */
  function layOut(isAgain) {
    const measure = measures();
    if (isAgain) {
      chunks.forEach(({ element }) => element.remove());
      chunks = [];
    }
    const open = chunks.pop();
    const rows = rowsFrom(open ? open.first : 0, measure);
    let reuse = open?.element;
    for (let index = 0; index < rows.length; index += ROWS_IN_CHUNK) {
      const part = rows.slice(index, index + ROWS_IN_CHUNK);
      const element = reuse ?? document.createElement("ul");
      reuse = undefined;
      element.className = "sheet placed";
      element.setAttribute("aria-label", "Pictures");
      const height = part.reduce((sum, row) => sum + placeRow(row, measure.gap) + measure.gap, 0);
      element.style.containIntrinsicSize = `auto ${width}px auto ${height}px`;
      const inside = tiles.slice(part[0].start, part[part.length - 1].end).map((tile) => tile.element);
      if (element.children.length !== inside.length || element.lastElementChild !== inside[inside.length - 1]) {
        const focused = document.activeElement;
        element.append(...inside.filter((tile) => tile.parentElement !== element));
        while (element.children.length > inside.length) element.lastElementChild.remove();
        if (focused !== document.activeElement) focused?.focus({ preventScroll: true });
      }
      if (!element.isConnected) list.append(element);
      chunks.push({ element, first: part[0].start });
    }
  }

  function add(elements) {
    for (const element of elements) tiles.push({ element, shape: shapeOf(element) });
  }

  // ---- Tiles of what the API lists: the same as templates/albums/tile.html ----

  const sizes = list.dataset.sizes.split(" ").map(Number);

  function srcset(image) {
    const longest = Math.max(image.width, image.height);
    const byWidth = new Map();
    for (const size of sizes) {
      const wide = Math.min(image.width, Math.max(1, Math.round((image.width * size) / longest)));
      if (!byWidth.has(wide)) byWidth.set(wide, size);
    }
    return [...byWidth].map(([wide, size]) => `${image.thumbnail_url}?size=${size} ${wide}w`).join(", ");
  }

  function make(image) {
    const shape = Math.round(Math.log(image.width / image.height) / Math.log(STEP));
    const title = image.prompt || image.name;
    const tile = document.createElement("li");
    tile.className = `tile r${Math.max(NARROWEST, Math.min(WIDEST, shape))}`;
    tile.dataset.hash = image.placeholder ?? "";
    const link = document.createElement("a");
    link.href = list.dataset.page.replace("00000000-0000-0000-0000-000000000000", image.id) + list.dataset.query;
    const picture = document.createElement("img");
    picture.loading = "lazy";
    picture.decoding = "async";
    picture.alt = title;
    picture.width = image.width;
    picture.height = image.height;
    if (Math.max(image.width, image.height) <= TINY) {
      picture.className = "tiny";
      picture.src = image.file_url;
    } else {
      picture.sizes = "auto, (max-width: 40rem) 50vw, 22rem";
      picture.srcset = srcset(image);
      picture.src = image.thumbnail_url;
    }
    const caption = document.createElement("span");
    caption.className = "caption";
    caption.setAttribute("aria-hidden", "true");
    caption.textContent = title;
    link.append(picture, caption);
    tile.append(link);
    if (image.visibility === "private") {
      const badge = document.createElement("span");
      badge.className = "badge";
      badge.textContent = "private";
      tile.append(badge);
    }
    if (image.nsfw === "flagged") tile.classList.add("flagged");
    return tile;
  }

  /** What is flagged stays blurred until somebody asks for it. */
  function veil(tile) {
    if (!tile.classList.contains("flagged")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "unveil";
    button.textContent = "Flagged: show";
    button.addEventListener("click", () => {
      tile.classList.remove("flagged");
      tile.querySelector("a").focus();
      button.remove();
    });
    tile.append(button);
  }

  // ---- The next pages ----

  let next = list.dataset.next;
  let isLoading = false;

  function say(text) {
    said.textContent = text;
  }

  async function load(limit = PAGE) {
    if (isLoading || !next) return false;
    isLoading = true;
    list.setAttribute("aria-busy", "true");
    try {
      const url = new URL(next, location.href);
      url.searchParams.set("limit", limit);
      const response = await fetch(url.pathname + url.search, { headers: { accept: "application/json" } });
      if (!response.ok) throw new Error(`the server answered ${response.status}`);
      const page = await response.json();
      next = page.next;
      const made = page.results.map(make);
      add(made);
      layOut(false);
      made.forEach((tile) => {
        watch(tile);
        veil(tile);
      });
      say(next ? `${tiles.length} pictures` : `All ${tiles.length} pictures are shown.`);
      if (!next) more?.remove();
      return true;
    } catch (error) {
      say(`The next pictures did not come: ${error.message}.`);
      if (more) {
        more.hidden = false;
        more.textContent = "Try again";
      }
      return false;
    } finally {
      isLoading = false;
      list.removeAttribute("aria-busy");
    }
  }

  const bottom = new IntersectionObserver(
    async (entries) => {
      if (!entries[entries.length - 1].isIntersecting) return;
      if (await load()) {
        bottom.unobserve(said); // told again whether it is still near: a short page leaves it there
        bottom.observe(said);
      }
    },
    { rootMargin: `${AHEAD}px` },
  );

  // ---- Where somebody was, when they come back ----

  const memory = `gallery ${location.pathname}${location.search}`;

  function remember() {
    sessionStorage.setItem(memory, JSON.stringify({ count: tiles.length, y: scrollY }));
    sessionStorage.setItem("gallery", location.href);
  }

  async function comeBack() {
    const kind = performance.getEntriesByType("navigation")[0]?.type;
    const before = JSON.parse(sessionStorage.getItem(memory) ?? "null");
    if (kind !== "back_forward" || !before) return;
    while (tiles.length < before.count && (await load(200)));
    scrollTo({ top: before.y, behavior: "instant" });
  }

  // ---- Beginning ----

  const first = [...list.querySelectorAll(".tile")];
  width = Math.floor(list.clientWidth);
  add(first);
  list.querySelector(".sheet").remove();
  layOut(true);
  first.forEach(veil);

  new ResizeObserver(() => {
    const now = Math.floor(list.clientWidth);
    if (now === width || now === 0) return;
    width = now;
    layOut(true);
  }).observe(list);

  addEventListener("pagehide", remember);
  if (next && more) {
    more.hidden = true;
    more.addEventListener("click", (event) => {
      event.preventDefault();
      more.hidden = true;
      load();
    });
  }
  comeBack().finally(() => next && bottom.observe(said));
})();
