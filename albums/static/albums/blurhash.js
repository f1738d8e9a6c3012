// Placeholders: what BlurHash (https://github.com/woltapp/blurhash, its published algorithm) says of a picture.
"use strict";

const ImageHubBlurHash = (() => {
  const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~";

  function number(text) {
    let value = 0;
    for (const digit of text) {
      const place = DIGITS.indexOf(digit);
      if (place < 0) throw new RangeError("This is no BlurHash.");
      value = value * 83 + place;
    }
    return value;
  }

  const toLinear = (byte) => {
    const part = byte / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  };
  const toByte = (linear) => {
    const part = Math.min(1, Math.max(0, linear));
    return Math.round(255 * (part <= 0.0031308 ? part * 12.92 : 1.055 * part ** (1 / 2.4) - 0.055));
  };
  const bytes = (rgb) => [rgb >> 16, (rgb >> 8) & 255, rgb & 255];
  const signedSquare = (value) => Math.sign(value) * value * value;

  /** Whether a text has the length that its first digit promises. */
  function isValid(hash) {
    if (!hash || hash.length < 6) return false;
    const size = DIGITS.indexOf(hash[0]);
    return size >= 0 && hash.length === 4 + 2 * ((size % 9) + 1) * (Math.floor(size / 9) + 1);
  }

  /** The colour of a picture on the whole. */
  function averageColour(hash) {
    return `rgb(${bytes(number(hash.slice(2, 6))).join(" ")})`;
  }

  /** The picture, blurred: the bytes of `width` × `height` pixels. */
  function decode(hash, width, height) {
    const size = number(hash[0]);
    const across = (size % 9) + 1;
    const down = Math.floor(size / 9) + 1;
    const strength = (number(hash[1]) + 1) / 166;
    const waves = [bytes(number(hash.slice(2, 6))).map(toLinear)];
    for (let index = 1; index < across * down; index += 1) {
      const value = number(hash.slice(4 + index * 2, 6 + index * 2));
      waves.push(
        [Math.floor(value / 361), Math.floor(value / 19) % 19, value % 19].map(
          (part) => signedSquare((part - 9) / 9) * strength,
        ),
      );
    }
    const cosines = (count, length) =>
      Array.from({ length }, (_, place) =>
        Array.from({ length: count }, (_, wave) => Math.cos((Math.PI * wave * place) / length)),
      );
    const columns = cosines(across, width);
    const rows = cosines(down, height);
    const pixels = new Uint8ClampedArray(width * height * 4);
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        let [red, green, blue] = [0, 0, 0];
        for (let j = 0; j < down; j += 1) {
          for (let i = 0; i < across; i += 1) {
            const weight = columns[x][i] * rows[y][j];
            const wave = waves[j * across + i];
            red += wave[0] * weight;
            green += wave[1] * weight;
            blue += wave[2] * weight;
          }
        }
        pixels.set([toByte(red), toByte(green), toByte(blue), 255], (y * width + x) * 4);
      }
    }
    return pixels;
  }

  const SIDE = 24;

  /** Lay the blurred picture behind an image until that one is there. */
  function show(holder, image, hash) {
    if (!isValid(hash) || (image.complete && image.naturalWidth)) return;
    holder.style.backgroundColor = averageColour(hash);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    canvas.className = "blur";
    canvas.setAttribute("aria-hidden", "true");
    canvas.getContext("2d").putImageData(new ImageData(decode(hash, SIDE, SIDE), SIDE, SIDE), 0, 0);
    holder.prepend(canvas);
    const remove = () => {
      canvas.remove();
      holder.style.backgroundColor = "";
    };
    image.addEventListener("load", remove, { once: true });
  }

  return { isValid, averageColour, decode, show };
})();
