// The viewer of attribution maps. Each element of class "wl" holds its data in a script of JSON (see
// panel.py) and becomes a viewer: a prompt whose words show their maps, panels of an image with a
// map over it, and controls. All panels share one state, so hover, pins and sliders are linked.
(() => {
  "use strict";
  // Colours that stay apart for readers who don't see red or green (Okabe and Ito).
  const PINS = ["#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2"];
  // matplotlib's inferno, and blue through nothing to orange for maps with a sign.
  const HEAT = ramp(["#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925",
    "#fb9b06", "#f7d13d", "#fcffa4"]);
  const AGAINST = ramp(["#8fd0ff", "#4aa3f0", "#2274d4"]);
  const FOR = ramp(["#ffd08a", "#ff9a33", "#d95f02"]);
  const LEAST_SIDE = 512, MOST_SIDE = 1024, RANKED = 8, FRAME = 180;
  const SVG = "http://www.w3.org/2000/svg";
  let count = 0;

  function ramp(stops) {
    const rgb = stops.map((s) => [1, 3, 5].map((i) => parseInt(s.slice(i, i + 2), 16)));
    return Array.from({ length: 256 }, (_, i) => {
      const x = (i / 255) * (rgb.length - 1), k = Math.min(rgb.length - 2, Math.floor(x));
      return rgb[k].map((c, j) => c + (rgb[k + 1][j] - c) * (x - k));
    });
  }

  function make(tag, options = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
      if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  // What is far below the largest of some numbers is 0 among them.
  function number(value, largest = 0) {
    if (value === 0 || Math.abs(value) < 1e-4 * largest) return "0";
    const size = Math.abs(value);
    if (size >= 1e5 || size < 1e-4) return value.toExponential(1);
    return String(Number(value.toPrecision(3)));
  }

  const percent = (share) => `${share > 0 && share < 0.095 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;

  // Data: base64 of deflated differences, see packing.py.

  const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  async function inflate(text) {
    const stream = new Blob([bytesOf(text)]).stream();
    const out = stream.pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(out).arrayBuffer());
  }

  async function unpackMaps(packed) {
    const [height, width] = packed.shape.slice(-2);
    const size = height * width, ranges = new Float32Array(bytesOf(packed.range).buffer);
    const bytes = await inflate(packed.levels), total = (ranges.length / 2) * size;
    const most = 2 ** packed.bits - 1;
    return Array.from({ length: ranges.length / 2 }, (_, index) => {
      const [low, high] = [ranges[2 * index], ranges[2 * index + 1]];
      const values = new Float32Array(size);
      for (let y = 0, place = index * size; y < height; y++) {
        for (let x = 0, level = 0; x < width; x++, place++) {
          level += bytes[place] + (packed.bits === 16 ? bytes[total + place] << 8 : 0);
          level &= most;
          values[y * width + x] = low + ((high - low) * level) / most;
        }
      }
      return { height, width, values };
    });
  }

  async function unpackMask(packed) {
    const bytes = await inflate(packed.bits), [height, width] = packed.shape;
    const values = new Float32Array(height * width);
    values.forEach((_, i) => { values[i] = (bytes[i >> 3] >> (7 - (i & 7))) & 1; });
    return { height, width, values };
  }

  // Bicubic resizing as wordlight's own (and PyTorch's, a = -0.75): pixel centres, edges repeated.

  function taps(place, size) {
    const centre = place - 0.5, first = Math.floor(centre), A = -0.75;
    return [-1, 0, 1, 2].map((k) => {
      const d = Math.abs(centre - first - k);
      const weight = d <= 1 ? (A + 2) * d ** 3 - (A + 3) * d ** 2 + 1
        : d < 2 ? A * d ** 3 - 5 * A * d ** 2 + 8 * A * d - 4 * A : 0;
      return [Math.min(size - 1, Math.max(0, first + k)), weight];
    });
  }

  function resized(map, height, width, smooth) {
    const across = Array.from({ length: width }, (_, x) => taps(((x + 0.5) * map.width) / width, map.width));
    const down = Array.from({ length: height }, (_, y) => taps(((y + 0.5) * map.height) / height, map.height));
    const out = new Float32Array(height * width);
    if (!smooth) {
      for (let y = 0; y < height; y++) {
        const row = Math.floor(((y + 0.5) * map.height) / height) * map.width;
        for (let x = 0; x < width; x++) {
          out[y * width + x] = map.values[row + Math.floor(((x + 0.5) * map.width) / width)];
        }
      }
      return out;
    }
    const rows = new Float32Array(map.height * width);
    for (let y = 0; y < map.height; y++) {
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (const [k, weight] of across[x]) sum += weight * map.values[y * map.width + k];
        rows[y * width + x] = sum;
      }
    }
    for (let y = 0; y < height; y++) {
      const [a, b, c, d] = down[y].map(([k]) => k * width), [p, q, r, s] = down[y].map(([, w]) => w);
      for (let x = 0; x < width; x++) {
        out[y * width + x] = p * rows[a + x] + q * rows[b + x] + r * rows[c + x] + s * rows[d + x];
      }
    }
    return out;
  }

  // The value at one place of the image, given in shares of its sides.
  function valueAt(map, point) {
    let sum = 0;
    for (const [y, v] of taps(point.y * map.height, map.height)) {
      for (const [x, w] of taps(point.x * map.width, map.width)) sum += v * w * map.values[y * map.width + x];
    }
    return sum;
  }

  function extent(values) {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return { low, high };
  }

  // The lines along which values cross a level, as an SVG path in units of places (marching squares).
  function outline(values, height, width, level) {
    const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height ? values[y * width + x] : -Infinity;
    const edge = (x0, y0, v0, x1, y1, v1) => {
      const t = isFinite(v0) && isFinite(v1) ? (level - v0) / (v1 - v0) : 0.5;
      return `${(x0 + (x1 - x0) * t + 0.5).toFixed(1)} ${(y0 + (y1 - y0) * t + 0.5).toFixed(1)}`;
    };
    let path = "";
    for (let y = -1; y < height; y++) {
      for (let x = -1; x < width; x++) {
        const [a, b, c, d] = [inside(x, y), inside(x + 1, y), inside(x + 1, y + 1), inside(x, y + 1)];
        const [A, B, C, D] = [a >= level, b >= level, c >= level, d >= level];
        if (A === B && B === C && C === D) continue;
        const sides = [];
        if (A !== B) sides.push(edge(x, y, a, x + 1, y, b));
        if (B !== C) sides.push(edge(x + 1, y, b, x + 1, y + 1, c));
        if (C !== D) sides.push(edge(x, y + 1, d, x + 1, y + 1, c));
        if (D !== A) sides.push(edge(x, y, a, x, y + 1, d));
        if (sides.length === 4 && B) sides.push(sides.shift());
        for (let i = 0; i < sides.length; i += 2) path += `M${sides[i]}L${sides[i + 1]}`;
      }
    }
    return path;
  }

  class Panel {
    constructor(viewer, data, place) {
      Object.assign(this, { viewer, place, ...data });
      const { height, width } = this.image, longest = Math.max(height, width);
      const times = longest >= LEAST_SIDE ? Math.min(1, MOST_SIDE / longest) : Math.ceil(LEAST_SIDE / longest);
      [this.height, this.width] = [Math.round(height * times), Math.round(width * times)];
      this.cache = new Map();
      this.build();
    }

    async load() {
      this.mean = await unpackMaps(this.maps);
      if (this.apart) this.slices = await unpackMaps(this.apart);
      for (const key of Object.keys(this.masks)) this.masks[key] = await unpackMask(this.masks[key]);
    }

    build() {
      const id = `wl${this.viewer.id}-${this.place}`;
      this.canvas = make("canvas", { width: this.width, height: this.height, "aria-hidden": "true" });
      this.marks = document.createElementNS(SVG, "svg");
      this.marks.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
      this.marks.setAttribute("aria-hidden", "true");
      this.labels = make("div", { class: "wl-labels", "aria-hidden": "true" });
      this.stage = make("div", {
        class: "wl-stage", tabindex: 0, role: "application", "aria-describedby": `${id}-keys`,
        "aria-label": `${this.label ? `${this.label}: ` : ""}the image. Arrow keys rank the words at a pixel`,
        style: `aspect-ratio: ${this.image.width} / ${this.image.height}`,
      }, this.picture = make("img", {
        src: this.image.source || this.viewer.image, alt: `Image of the ${this.viewer.text}`,
        class: Math.max(this.image.width, this.image.height) < LEAST_SIDE / 2 ? "wl-few" : null,
      }), this.canvas, this.marks, this.labels);
      this.legend = make("ul", { class: "wl-legend", "aria-label": "Maps that are shown" });
      this.where = make("p", { class: "wl-where" });
      this.list = make("ol", { class: "wl-ranking", "aria-label": "Words by their value" });
      const facts = Object.entries(this.facts).map(([name, value]) => `${name} ${value}`).join(" · ");
      this.element = make("section", { class: "wl-panel", "aria-label": this.label || "Image" },
        make("div", { class: "wl-picture" },
          this.label ? make("p", { class: "wl-label" }, make("b", {}, this.label), make("span", {}, facts)) : "",
          this.stage,
          make("p", { id: `${id}-keys`, class: "wl-hidden" },
            "Arrow keys move a point, with Shift further; Enter keeps it; Escape lets it go."),
          this.legend),
        make("div", { class: "wl-side" }, this.where, this.list));
      this.listen();
    }

    listen() {
      const { viewer, stage } = this;
      const place = (event) => {
        const box = stage.getBoundingClientRect();
        const inside = (share, size) => (Math.min(size - 1, Math.max(0, Math.floor(share * size))) + 0.5) / size;
        return {
          x: inside((event.clientX - box.left) / box.width, this.image.width),
          y: inside((event.clientY - box.top) / box.height, this.image.height),
        };
      };
      stage.addEventListener("pointermove", (event) => {
        viewer.leader = this.place;
        if (!viewer.kept) viewer.point = place(event), viewer.draw();
      });
      stage.addEventListener("pointerleave", () => {
        if (!viewer.kept) viewer.point = null, viewer.draw();
      });
      stage.addEventListener("click", (event) => {
        const point = place(event);
        const same = viewer.kept && ["x", "y"].every((k) => Math.abs(point[k] - viewer.point[k]) < 0.02);
        viewer.keep(same ? null : point, this);
      });
      stage.addEventListener("keydown", (event) => {
        const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
        const move = moves[event.key];
        if (move) {
          // One place of the maps, or a tenth of the image.
          const sides = { x: this.mean[0].width, y: this.mean[0].height };
          const far = (k) => (event.shiftKey ? Math.max(1, Math.round(sides[k] / 10)) : 1) / sides[k];
          const from = viewer.point || { x: 0.5, y: 0.5 };
          const inside = (share, size) => Math.min(1 - 0.5 / size, Math.max(0.5 / size, share));
          viewer.point = {
            x: inside(from.x + move[0] * far("x"), this.image.width),
            y: inside(from.y + move[1] * far("y"), this.image.height),
          };
          viewer.draw();
          viewer.say(this.spoken());
        } else if (event.key === "Enter" || event.key === " ") {
          viewer.keep(viewer.kept ? null : viewer.point || { x: 0.5, y: 0.5 }, this);
        } else return;
        event.preventDefault();
      });
    }

    // Which slices the sliders choose; null where each axis shows its mean.
    chosen() {
      if (!this.slices) return null;
      const wanted = this.axes.map((axis) => {
        const label = this.viewer.at[axis.name];
        return label === undefined ? -1 : axis.labels.indexOf(label);
      });
      return wanted.some((index) => index >= 0) ? wanted : null;
    }

    // A video's image is that of the chosen frame, or its middle one.
    turn() {
      const axis = this.axes.find((one) => one.name === "frame");
      const source = this.image.frames[axis ? axis.labels.indexOf(this.viewer.at.frame) : -1] || this.image.source || this.viewer.image;
      if (this.picture.getAttribute("src") !== source) this.picture.src = source;
    }

    // The map of a player on its own grid.
    map(player) {
      const wanted = this.chosen();
      if (!wanted) return this.mean[player];
      const key = `${player}:${wanted}`;
      if (!this.cache.has(key)) this.cache.set(key, this.meanOf(player, wanted));
      return this.cache.get(key);
    }

    meanOf(player, wanted) {
      const sizes = this.axes.map((axis) => axis.labels.length);
      const each = sizes.reduce((a, b) => a * b, 1), first = this.slices[player * each];
      const values = new Float32Array(first.values.length);
      let used = 0;
      for (let slice = 0; slice < each; slice++) {
        let rest = slice;
        const fits = [...sizes.keys()].reverse().every((axis) => {
          const index = rest % sizes[axis];
          rest = Math.floor(rest / sizes[axis]);
          return wanted[axis] < 0 || wanted[axis] === index;
        });
        if (!fits) continue;
        used += 1;
        this.slices[player * each + slice].values.forEach((v, i) => { values[i] += v; });
      }
      return { height: first.height, width: first.width, values: values.map((v) => v / used) };
    }

    // The map of a player as it is drawn, and the range that its colours span.
    shown(player) {
      const { smooth, scale } = this.viewer;
      const key = `shown ${player}:${this.chosen()}:${smooth}`;
      if (!this.cache.has(key)) {
        const map = this.map(player);
        const values = resized(map, this.height, this.width, smooth);
        const own = extent(map.values), size = Math.max(Math.abs(own.low), Math.abs(own.high));
        // A map that is the same everywhere but for rounding has nothing to show.
        const even = own.high - own.low <= 1e-6 * size;
        const kept = { values, own: extent(values), even, positive: own.high > 1e-6 * size };
        kept.blank = even || (!this.signed && !kept.positive);
        // Some words at a time is what is looked at.
        if (this.cache.size > 64) this.cache.delete(this.cache.keys().next().value);
        this.cache.set(key, kept);
      }
      const found = this.cache.get(key);
      return { ...found, ...(scale === "all" ? this.common() : found.own) };
    }

    // One range for the words of the prompt (special positions would outshine them all).
    common() {
      const players = this.viewer.words.filter((w) => w.kind !== "special").map((w) => w.players[this.place]);
      const ranges = players.filter((p) => p !== null).map((p) => extent(this.map(p).values));
      return { low: Math.min(...ranges.map((r) => r.low)), high: Math.max(...ranges.map((r) => r.high)) };
    }

    // Where the mask of a threshold begins.
    level(shown) {
      const { threshold } = this.viewer;
      return this.signed ? threshold * Math.max(shown.high, 0) : shown.low + threshold * (shown.high - shown.low);
    }

    covered(shown) {
      if (shown.blank || !shown.positive) return 0;
      const level = this.level(shown);
      let inside = 0;
      for (const value of shown.values) if (value >= level) inside += 1;
      return inside / shown.values.length;
    }

    draw() {
      const { viewer } = this;
      const player = (word) => viewer.words[word].players[this.place];
      const words = (viewer.hover === null ? viewer.pins : [viewer.hover]);
      const maps = words.filter((w) => player(w) !== null).map((w) => ({ word: w, player: player(w) }));
      const shown = maps.map((one) => ({ ...one, ...this.shown(one.player), colour: viewer.colour(one.word) }));
      this.turn();
      this.element.classList.toggle("wl-lit", words.length > 0);
      this.element.classList.toggle("wl-several", viewer.hover === null);
      this.paint(shown);
      this.mark(shown);
      this.explain(shown, words);
      this.rank();
    }

    paint(shown) {
      const { opacity, threshold, hover, scale, smooth } = this.viewer;
      const drawn = JSON.stringify([
        opacity, threshold, hover, scale, smooth, this.chosen(), shown.map((one) => [one.word, one.colour]),
      ]);
      if (drawn === this.drawn) return;
      this.drawn = drawn;
      const context = this.canvas.getContext("2d");
      const picture = context.createImageData(this.width, this.height), pixels = picture.data;
      const several = hover === null;
      const colours = shown.map((one) => [1, 3, 5].map((i) => parseInt(one.colour.slice(i, i + 2), 16)));
      const levels = shown.map((one) => this.level(one));
      for (let place = 0; shown.length && place < this.width * this.height; place++) {
        let red = 0, green = 0, blue = 0, alpha = 0, sum = 0;
        shown.forEach((one, index) => {
          const value = one.values[place];
          if (one.blank) return;
          if (this.signed) {
            if (threshold > 0 && value < levels[index] && value > -levels[index]) return;
            const share = Math.min(1, Math.abs(value) / Math.max(one.high, -one.low));
            // Resizing overshoots zero beside a map that is nowhere above it.
            if (value > 0 ? !one.positive : several) return;
            const [r, g, b] = several ? colours[index] : (value < 0 ? AGAINST : FOR)[Math.round(255 * share)];
            red += share * r, green += share * g, blue += share * b, sum += share;
            alpha = Math.max(alpha, share ** 0.75);
            return;
          }
          if (threshold > 0 && value < levels[index]) return;
          const share = Math.min(1, Math.max(0, (value - one.low) / (one.high - one.low)));
          if (!several) {
            [red, green, blue] = HEAT[Math.round(255 * share)];
            sum = alpha = 1;
            return;
          }
          const [r, g, b] = colours[index], weight = share ** 4;
          red += weight * r, green += weight * g, blue += weight * b, sum += weight;
          alpha = Math.max(alpha, share ** 1.5);
        });
        if (sum > 0) {
          const at = 4 * place;
          pixels[at] = red / sum, pixels[at + 1] = green / sum, pixels[at + 2] = blue / sum;
          pixels[at + 3] = 255 * opacity * alpha;
        }
      }
      context.putImageData(picture, 0, 0);
    }

    // Outlines at the threshold, true masks, the point, and each pinned word at its peak.
    mark(shown) {
      const { viewer } = this;
      const path = (d, kind, colour) => {
        const element = document.createElementNS(SVG, "path");
        element.setAttribute("d", d);
        element.setAttribute("class", kind);
        if (colour) element.style.stroke = colour;
        this.marks.append(element);
      };
      this.marks.replaceChildren();
      this.labels.replaceChildren();
      const taken = [];
      for (const one of shown) {
        const mask = this.masks[one.player];
        if (mask) {
          const d = outline(resized(mask, this.height, this.width, false), this.height, this.width, 0.5);
          path(d, "wl-truth-under");
          path(d, "wl-truth");
        }
        if (one.blank || !one.positive) continue;
        if (viewer.threshold > 0) {
          const d = outline(one.values, this.height, this.width, this.level(one));
          path(d, "wl-outline-under");
          path(d, "wl-outline", viewer.hover === null ? one.colour : "#fff");
        }
        if (viewer.hover !== null) continue;
        const peak = one.values.indexOf(one.own.high);
        const x = ((peak % this.width) + 0.5) / this.width;
        let y = (Math.floor(peak / this.width) + 0.5) / this.height;
        while (taken.some((o) => Math.abs(o.x - x) < 0.25 && Math.abs(o.y - y) < 0.07)) y += y < 0.9 ? 0.07 : -0.5;
        taken.push({ x, y });
        const side = x > 0.75 ? "wl-left" : x < 0.25 ? "wl-right" : null;
        this.labels.append(make("span", {
          class: side, style: `left: ${100 * x}%; top: ${100 * y}%; --pin: ${one.colour}`,
        }, make("bdi", {}, viewer.words[one.word].name)));
      }
      if (viewer.point) {
        const [x, y] = [viewer.point.x * this.width, viewer.point.y * this.height];
        const r = Math.max(this.width, this.height) / 40;
        const d = `M${x - 2 * r} ${y}H${x - r / 2}M${x + r / 2} ${y}H${x + 2 * r}M${x} ${y - 2 * r}V${y - r / 2}M${x} ${y + r / 2}V${y + 2 * r}`;
        path(d, "wl-point-under");
        path(d, viewer.kept ? "wl-point wl-kept" : "wl-point");
      }
    }

    // The colour bars, with what their ends stand for.
    explain(shown, words) {
      const { viewer } = this;
      this.legend.replaceChildren(...words.map((word) => {
        const one = shown.find((s) => s.word === word), name = make("bdi", {}, viewer.words[word].name);
        if (!one) return make("li", {}, name, make("span", { class: "wl-note" }, "has no map of its own here"));
        const colour = viewer.hover === null ? `--pin: ${one.colour}` : null;
        const kind = viewer.hover === null ? "wl-own" : this.signed ? "wl-signed" : "wl-heat";
        if (one.blank) {
          const why = one.even ? "is the same everywhere: nothing to show" : "is nowhere positive: nothing to show";
          return make("li", { style: colour }, name, make("span", { class: "wl-note" }, why));
        }
        const most = Math.max(Math.abs(one.high), Math.abs(one.low));
        const [low, high] = this.signed ? [kind === "wl-own" ? 0 : -most, most] : [one.low, one.high];
        const note = !one.positive ? "nowhere positive"
          : viewer.threshold > 0 ? `covers ${percent(this.covered(one))} of the image` : "";
        return make("li", { style: colour }, name,
          make("span", { class: "wl-bar" }, make("span", { class: "wl-number" }, number(low, most)),
            make("span", { class: `wl-ramp ${kind}` }), make("span", { class: "wl-number" }, number(high, most))),
          make("span", { class: "wl-note" }, note));
      }));
    }

    // Every word's value at the point, or over the whole image, the highest first.
    ranking() {
      const { viewer } = this;
      const at = (map) => viewer.point ? valueAt(map, viewer.point)
        : map.values.reduce((a, b) => a + b, 0) / map.values.length;
      const found = [];
      viewer.words.forEach((word, index) => {
        const player = word.players[this.place];
        if (player === null || (word.kind === "special" && !viewer.specials)) return;
        const map = this.map(player), value = at(map), { low, high } = extent(map.values);
        const most = this.signed ? Math.max(high, -low) : high - low;
        const share = most > 1e-6 * Math.max(Math.abs(low), Math.abs(high))
          ? (this.signed ? value : value - low) / most : 0;
        found.push({ word: index, value, share });
      });
      const key = viewer.rankBy === "share" ? "share" : "value";
      return found.sort((a, b) => b[key] - a[key]).map((one) => ({ ...one, key: one[key] }));
    }

    rank() {
      const { viewer } = this, ranking = this.ranking();
      const most = Math.max(1e-30, ...ranking.map((one) => Math.abs(one.key)));
      this.where.textContent = viewer.point ? `Words at ${this.pixel()}${viewer.kept ? ", kept" : ""}` : "Words over the whole image";
      if (this.place === viewer.leader) viewer.light(viewer.point ? ranking : null);
      const rows = viewer.all ? ranking : ranking.slice(0, viewer.panels.length > 1 ? 5 : RANKED);
      // A row that is replaced under the pointer would be entered anew, without end.
      const ranked = JSON.stringify([viewer.rankBy, rows, viewer.pins.map((word) => viewer.colour(word))]);
      if (ranked === this.ranked) return;
      this.ranked = ranked;
      this.list.replaceChildren(...rows.map(({ word, value, share, key }) => {
        const pinned = viewer.pins.includes(word);
        const row = make("button", {
          type: "button", tabindex: -1, class: "wl-row", "data-word": word,
          style: `--share: ${Math.min(1, Math.abs(key) / most)}; ${pinned ? `--pin: ${viewer.colour(word)}` : ""}`,
          onclick: () => viewer.pin(word),
          onpointerenter: () => viewer.over(word), onpointerleave: () => viewer.over(null),
        }, make("bdi", {}, viewer.words[word].name),
        make("span", { class: key < 0 ? "wl-meter wl-below" : "wl-meter" }),
        make("span", { class: "wl-number" }, viewer.rankBy === "share" ? percent(share) : number(value, most)));
        if (pinned) row.classList.add("wl-pinned");
        return make("li", {}, row);
      }));
    }

    pixel() {
      const { x, y } = this.viewer.point;
      return `x ${Math.floor(x * this.image.width)}, y ${Math.floor(y * this.image.height)}`;
    }

    spoken() {
      const best = this.ranking().slice(0, 3).map((one) =>
        `${this.viewer.words[one.word].name} ${this.viewer.rankBy === "share" ? percent(one.share) : number(one.value)}`);
      return `${this.pixel()}: ${best.join(", ")}`;
    }
  }

  class Viewer {
    constructor(element, data) {
      Object.assign(this, {
        id: count++, element, words: data.words, hover: null, pins: [], colours: new Map(),
        point: null, kept: false, leader: 0, opacity: 0.75, threshold: 0, scale: "each", rankBy: "value",
        smooth: true, specials: false, all: false, at: {}, film: null,
      });
      const [{ title, pieces }] = data.texts;
      this.text = `${(title || "prompt").toLowerCase()}: ${pieces.map((piece) => piece.text).join("")}`;
      this.image = data.panels[0].image.source;
      this.panels = data.panels.map((panel, place) => new Panel(this, panel, place));
      this.live = make("p", { class: "wl-hidden", role: "status", "aria-live": "polite" });
      element.classList.toggle("wl-side-by-side", this.panels.length > 1);
      element.append(this.head(data), make("div", { class: "wl-panels" }, ...this.panels.map((p) => p.element)),
        this.controls(), this.live);
      element.addEventListener("keydown", (event) => {
        if (event.key === "Escape") this.release();
      });
      data.pinned.forEach((word) => this.pin(word));
    }

    async load() {
      await Promise.all(this.panels.map((panel) => panel.load()));
      this.loaded = true;
      this.draw();
      this.element.dataset.ready = "";
    }

    button(word, text, kind) {
      const shown = this.words[word];
      return make("button", {
        type: "button", class: `wl-word ${kind}`, "data-word": word, "aria-pressed": "false", tabindex: -1,
        "aria-label": text === shown.name ? null : shown.name,
        onclick: () => this.pin(word),
        onpointerenter: (event) => event.pointerType !== "touch" && this.over(word),
        onpointerleave: () => this.over(null),
        onfocus: (event) => {
          this.buttons.forEach((one) => one.setAttribute("tabindex", one === event.target ? 0 : -1));
          if (event.target.matches(":focus-visible")) this.over(word);
        },
        onblur: () => this.over(null),
      }, make("bdi", {}, text));
    }

    head(data) {
      const written = ({ title, pieces, right_to_left }) => make("p", {
        class: title ? "wl-prompt wl-negative" : "wl-prompt", dir: right_to_left ? "rtl" : "ltr",
      }, title ? make("span", { class: "wl-title" }, title) : "", ...pieces.map(({ text, word }) =>
        word === null ? (text.trim() ? make("bdi", {}, text) : text) : this.button(word, text, "wl-text")));
      const rest = (kind, title) => {
        const own = this.words.map((w, i) => [w, i]).filter(([w]) => w.kind === kind);
        return own.length === 0 ? [] : [make("p", { class: "wl-rest" }, make("span", {}, title),
          ...own.map(([w, i]) => this.button(i, w.name, "wl-chip")))];
      };
      const head = make("div", { class: "wl-words", role: "group", "aria-label": "Words of the prompt" },
        ...data.texts.map(written), ...rest("other", "Not in the prompt"), ...rest("special", "Special positions"));
      this.buttons = [...head.querySelectorAll("button")];
      if (this.buttons.length) this.buttons[0].setAttribute("tabindex", 0);
      head.addEventListener("keydown", (event) => {
        const here = this.buttons.indexOf(document.activeElement), last = this.buttons.length - 1;
        const leftwards = document.activeElement.closest("[dir='rtl']") !== null;
        const [forward, back] = leftwards ? ["ArrowLeft", "ArrowRight"] : ["ArrowRight", "ArrowLeft"];
        const goal = { [forward]: Math.min(last, here + 1), [back]: Math.max(0, here - 1), Home: 0, End: last }[event.key];
        if (here < 0 || goal === undefined) return;
        event.preventDefault();
        this.buttons[goal].focus({ focusVisible: true });
      });
      return make("header", { class: "wl-head" }, head,
        ...data.warnings.map((text) => make("p", { class: "wl-warning", role: "note" }, make("bdi", {}, text))));
    }

    slider(name, title, options, change, read) {
      const output = make("output", {}, read(Number(options.value)));
      const input = make("input", {
        type: "range", ...options, "data-control": name, "aria-valuetext": read(Number(options.value)),
        oninput: () => {
          change(Number(input.value));
          output.textContent = read(Number(input.value));
          input.setAttribute("aria-valuetext", output.textContent);
          this.draw();
        },
      });
      return make("label", { class: "wl-control" }, make("span", {}, title, output), input);
    }

    choice(name, title, options, change) {
      const select = make("select", {
        "data-control": name, onchange: () => { change(select.value); this.draw(); },
      }, ...options.map(([value, text]) => make("option", { value }, text)));
      return make("label", { class: "wl-control" }, make("span", {}, title), select);
    }

    check(name, title, checked, change) {
      const box = make("input", {
        type: "checkbox", checked: checked ? "" : null, "data-control": name,
        onchange: () => { change(box.checked); this.draw(); },
      });
      return make("label", { class: "wl-check" }, box, make("span", {}, title));
    }

    controls() {
      const several = this.words.length > RANKED;
      const theme = make("button", { type: "button", class: "wl-button", onclick: () => this.theme(theme) }, "Theme: system");
      this.clear = make("button", {
        type: "button", class: "wl-button", disabled: "", onclick: () => this.release(),
      }, "Clear");
      return make("div", { class: "wl-controls", role: "group", "aria-label": "Controls" },
        this.slider("opacity", "Opacity", { min: 0, max: 100, value: 75 }, (v) => { this.opacity = v / 100; }, (v) => `${v} %`),
        this.slider("threshold", "Threshold", { min: 0, max: 100, value: 0 }, (v) => { this.threshold = v / 100; },
          (v) => v ? (v / 100).toFixed(2) : "off"),
        ...this.axisControls(),
        this.choice("scale", "Colour scale", [["each", "each map its own"], ["all", "one for all words"]], (v) => { this.scale = v; }),
        this.choice("rank", "Words ranked by", [["value", "value"], ["share", "share of own range"]], (v) => { this.rankBy = v; }),
        make("div", { class: "wl-checks" },
          this.check("smooth", "Smooth", true, (v) => { this.smooth = v; }),
          this.words.some((w) => w.kind === "special") ? this.check("specials", "Rank special positions", false, (v) => { this.specials = v; }) : "",
          several ? this.check("all", "Rank all", false, (v) => { this.all = v; }) : ""),
        make("div", { class: "wl-buttons" }, this.clear, theme),
        make("p", { class: "wl-help" }, "Point at a word to see its map, click to pin it. Point at the image to rank the words there, click to keep the place. ",
          make("kbd", {}, "Tab"), " and ", make("kbd", {}, "←"), make("kbd", {}, "→"), " do the same; ", make("kbd", {}, "Esc"), " lets go."));
    }

    axisControls() {
      const axes = new Map(this.panels.flatMap((p) => p.axes).map((axis) => [axis.name, axis.labels]).reverse());
      return [...axes].reverse().flatMap(([name, labels]) => {
        const choose = (index) => {
          if (index === 0) delete this.at[name];
          else this.at[name] = labels[index - 1];
        };
        const title = name[0].toUpperCase() + name.slice(1);
        // A video is looked at from its first frame on.
        const first = name === "frame" ? 1 : 0;
        choose(first);
        const slider = this.slider(name, title, { min: 0, max: labels.length, value: first }, choose,
          (index) => index ? labels[index - 1] : "mean");
        if (name !== "step" && name !== "frame") return [slider];
        const input = slider.querySelector("input");
        const play = make("button", { type: "button", class: "wl-button wl-play", "data-control": `play-${name}`, onclick: () => {
          this.film = this.film ? clearInterval(this.film) : setInterval(() => {
            input.value = Number(input.value) >= labels.length ? 1 : Number(input.value) + 1;
            input.dispatchEvent(new Event("input"));
          }, FRAME);
          play.textContent = this.film ? "❚❚ Stop" : "▶ Film";
        } }, "▶ Film");
        return [make("div", { class: "wl-film" }, slider, play)];
      });
    }

    theme(button) {
      const { style } = document.documentElement;
      style.colorScheme = { "": "dark", dark: "light", light: "" }[style.colorScheme];
      button.textContent = `Theme: ${style.colorScheme || "system"}`;
    }

    colour(word) {
      return PINS[this.colours.get(word) ?? 0];
    }

    over(word) {
      this.hover = word;
      this.draw();
    }

    pin(word) {
      const name = this.words[word].name;
      if (this.pins.includes(word)) {
        this.pins = this.pins.filter((one) => one !== word);
        this.colours.delete(word);
        this.say(`${name} unpinned`);
      } else if (this.pins.length === PINS.length) {
        this.say(`${PINS.length} words are pinned, which is all the colours there are: unpin one first`);
      } else {
        const used = new Set(this.colours.values());
        this.colours.set(word, PINS.findIndex((_, i) => !used.has(i)));
        this.pins.push(word);
        this.say(`${name} pinned`);
      }
      this.hover = null;
      this.draw();
    }

    keep(point, panel) {
      this.point = point;
      this.kept = point !== null;
      this.draw();
      this.say(point ? `${panel.spoken()}, kept` : "place let go");
    }

    // First the place, then the pins.
    release() {
      if (this.point) this.keep(null);
      else if (this.pins.length) {
        this.pins = [];
        this.colours.clear();
        this.say("pins cleared");
      }
      this.draw();
    }

    say(text) {
      this.live.textContent = text;
    }

    // The prompt's words lit by their values at the point; put out where there is none.
    light(ranking) {
      const shares = new Map((ranking || []).map((one) => [one.word, one.key]));
      const most = Math.max(1e-30, ...shares.values());
      for (const button of this.buttons) {
        const share = Math.max(0, (shares.get(Number(button.dataset.word)) || 0) / most);
        button.style.setProperty("--lit", ranking ? (share ** 2).toFixed(3) : 0);
      }
    }

    draw() {
      if (!this.loaded || this.waiting) return;
      this.waiting = requestAnimationFrame(() => {
        this.waiting = 0;
        for (const button of this.buttons) {
          const word = Number(button.dataset.word), pinned = this.pins.includes(word);
          button.setAttribute("aria-pressed", String(pinned));
          button.classList.toggle("wl-hover", this.hover === word);
          button.style.setProperty("--pin", pinned ? this.colour(word) : "");
        }
        this.clear.disabled = !this.pins.length && !this.point;
        this.panels.forEach((panel) => panel.draw());
      });
    }
  }

  for (const element of document.querySelectorAll(".wl")) {
    const viewer = new Viewer(element, JSON.parse(element.querySelector("script").textContent));
    // What lies in a closed part of a page waits until it is opened.
    const seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      viewer.load();
    });
    seen.observe(element);
  }
})();
