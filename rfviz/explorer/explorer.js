// The explorer: pick a network, a layer and a channel, and see what is known of it.
//
// An anywidget module without dependencies. The host gives `model`: get(name), set(name, value), save_changes(),
// on(event, listener) and send(message). Two names are synced: `manifest`, what there is to choose from, and `state`, what
// is shown, as a line of text that also stands behind the # of the page's address:
//
//     resnet34/layer1.0/18&with=plainnet34/19&sort=firing_rate&order=up&only=inactive&picture=maximization&stimulus=2
//
// Pictures never are widget state. A layer is asked for with send({ kind: "layer", model, layer }) and comes as a custom
// message: facts, and two sheets, either as addresses or as bytes. Text that comes from users, such as the names of
// classes, only ever goes through textContent and attributes.

const PICTURES = {
  filter: "first-layer filter",
  mean: "mean preferred stimulus",
  stretched: "mean preferred stimulus, contrast stretched",
  strongest: "mean over the strongest neurons, contrast stretched",
  maximization: "maximization image",
  "stimulus 0": "strongest stimulus",
};
const NEEDS_GRATINGS = ["orientation", "colour"]; // not measured of every network
const ORDINALS = ["strongest", "2nd strongest", "3rd strongest"];

// ---------------------------------------------------------------- small helpers

let serial = 0;
const unique = (name) => `rfviz-${name}-${(serial += 1)}`;

function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  set(element, attributes);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function s(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  set(element, attributes);
  element.append(...children);
  return element;
}

function set(element, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
}

function number(value, unit = "") {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  let text = value.toPrecision(3);
  if (size >= 1000) text = Math.round(value).toLocaleString("en-US");
  else if (size !== 0 && size < 0.001) text = value.toExponential(1);
  else text = String(Number(text));
  return unit === "%" ? `${text} %` : unit ? `${text} ${unit}` : text;
}

// ---------------------------------------------------------------- state as text

function parse(text, manifest) {
  const [path, ...rest] = text.split("&");
  const options = new URLSearchParams(rest.join("&"));
  const [model, layer, channel] = (path || manifest.start).split("/");
  const [otherModel, otherChannel] = (options.get("with") ?? "").split("/");
  const state = {
    model,
    layer,
    channel: Number(channel),
    other: otherModel ? { model: otherModel, channel: Number(otherChannel) } : null,
    sort: options.get("sort") ?? "channel",
    order: options.get("order") ?? "up",
    only: options.get("only") ?? "all",
    limit: options.get("limit") ?? "",
    picture: options.get("picture") ?? "",
    stimulus: Number(options.get("stimulus") ?? 0),
  };
  return repaired(state, manifest);
}

// A link may be old or mistyped: whatever it names that is not there is replaced by something that is.
function repaired(state, manifest) {
  const rowOf = (model, layer) => manifest.layers.find((row) => row.model === model && row.key === layer);
  const known = (model) => manifest.models.some(({ key }) => key === model);
  if (!known(state.model)) state.model = manifest.models[0].key;
  const rows = manifest.layers.filter((row) => row.model === state.model);
  const row = rowOf(state.model, state.layer) ?? rows[0];
  state.layer = row.key;
  state.channel = inRange(state.channel, row.channels);
  if (state.other) {
    const other = state.other.model !== state.model && rowOf(state.other.model, state.layer);
    state.other = other ? { model: state.other.model, channel: inRange(state.other.channel, other.channels) } : null;
  }
  const keys = ["channel", ...manifest.statistics.map(({ key }) => key)];
  if (!keys.includes(state.sort)) state.sort = "channel";
  if (!["up", "down"].includes(state.order)) state.order = "up";
  if (!["all", "inactive", "active", "least", "most"].includes(state.only)) state.only = "all";
  if (!Number.isInteger(state.stimulus) || state.stimulus < 0) state.stimulus = 0;
  if (!Number.isFinite(Number(state.limit))) state.limit = "";
  return state;
}

const inRange = (value, count) => (Number.isInteger(value) && value >= 0 && value < count ? value : 0);

function format(state) {
  const options = new URLSearchParams();
  if (state.other) options.set("with", `${state.other.model}/${state.other.channel}`);
  const usual = { sort: "channel", order: "up", only: "all", limit: "", picture: "", stimulus: 0 };
  for (const [key, value] of Object.entries(usual)) if (state[key] !== value) options.set(key, state[key]);
  const text = options.toString().replaceAll("%2F", "/");
  return `${state.model}/${state.layer}/${state.channel}${text ? `&${text}` : ""}`;
}

// ---------------------------------------------------------------- pictures

// How wide pictures may become, px: they are drawn pixel by pixel and enlarged by a whole number, or not at all.
const ROOM = { picture: 128, stimulus: 64, tile: 56 };

function fit(canvas, width, height, room) {
  canvas.width = width;
  canvas.height = height;
  canvas.style.width = `${width * Math.max(1, Math.floor(room / width))}px`;
}

// Without a column there is no picture, only its place.
function draw(canvas, layer, column, channel, room) {
  const { cell, columns } = layer.facts;
  const size = column === null ? cell : columns[column].size;
  fit(canvas, size, size, room);
  if (column === null) return;
  canvas.getContext("2d").drawImage(layer.cells, column * cell, channel * cell, size, size, 0, 0, size, size);
}

const columnOf = (layer, key) => layer.facts.columns.findIndex((column) => column.key === key);

function picture(layer, key, channel, label) {
  const canvas = h("canvas", { role: "img", "aria-label": label, title: label });
  draw(canvas, layer, columnOf(layer, key), channel, ROOM.picture);
  return canvas;
}

// The image that a stimulus comes from, with the receptive field to scale: black on white, to be seen on any image.
async function drawPlace(canvas, layer, stimulus) {
  const [, place, top, left, bottom, right] = stimulus;
  const source = layer.facts.sources[place];
  const scale = 2;
  const shrink = layer.facts.source / Math.max(source.height, source.width);
  const [width, height] = [source.width, source.height].map((side) => Math.max(1, Math.round(side * shrink)));
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.wanted = stimulus;
  const sheet = await layer.sources();
  if (canvas.wanted !== stimulus) return; // another one was asked for meanwhile
  const context = canvas.getContext("2d");
  context.drawImage(sheet, source.x, source.y, width, height, 0, 0, canvas.width, canvas.height);
  const box = [left, top, right - left, bottom - top].map((value) => value * shrink * scale);
  for (const [colour, thickness] of [["#000", 5], ["#fff", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = thickness;
    context.strokeRect(...box);
  }
}

function histogram(facts, channel) {
  // Bin 0 counts silent neurons, the others one octave each; shown are the octaves that hold something.
  const counts = channel.histogram.slice(1);
  const first = counts.findIndex((count) => count > 0);
  if (first < 0) return null;
  const last = counts.findLastIndex((count) => count > 0);
  const shown = counts.slice(first, last + 1);
  const most = Math.max(...shown);
  const [width, height, base] = [240, 84, 66];
  const step = width / shown.length;
  const edge = (bin) => (bin === 0 ? 0 : facts.edges[bin - 1]);
  const label =
    `Histogram of the responses above 0, by octaves from ${number(edge(first))} to ` +
    `${number(facts.edges[Math.min(last, facts.edges.length - 1)])}; the fullest bin has ${number(most)} neurons.`;
  const bars = shown.map((count, i) => {
    const tall = (count / most) * (base - 4);
    const bar = s("rect", { x: i * step + 1, y: base - tall, width: Math.max(1, step - 2), height: tall });
    bar.append(s("title", {}, `${number(edge(first + i))} to ${number(edge(first + i + 1))}: ${number(count)} neurons`));
    return bar;
  });
  const text = (x, anchor, words) => s("text", { x, y: height - 4, "text-anchor": anchor }, words);
  return s(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "rx-chart" },
    ...bars,
    s("line", { x1: 0, x2: width, y1: base, y2: base }),
    text(0, "start", number(edge(first))),
    text(width, "end", number(facts.edges[Math.min(last, facts.edges.length - 1)])),
    text(width / 2, "middle", "response (octaves)"),
  );
}

function curve(values, what) {
  const [width, height, base] = [240, 84, 66];
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const x = (i) => (i / Math.max(1, values.length - 1)) * (width - 4) + 2;
  const y = (value) => base - ((value - low) / (high - low || 1)) * (base - 6);
  const label =
    `The ${what} over ${values.length - 1} steps: from ${number(values[0])} to ${number(values.at(-1))}.`;
  return s(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "rx-chart" },
    s("line", { x1: 0, x2: width, y1: y(0), y2: y(0) }),
    s("polyline", { points: values.map((value, i) => `${x(i)},${y(value)}`).join(" ") }),
    s("text", { x: 0, y: height - 4, "text-anchor": "start" }, `step 0: ${number(values[0])}`),
    s("text", { x: width, y: height - 4, "text-anchor": "end" }, `step ${values.length - 1}: ${number(values.at(-1))}`),
  );
}

// How strongly each orientation of drifting gratings drives a channel.
function orientationCurve({ degrees, curve: values, preferred, frequency }) {
  if (preferred === null) return null;
  const [width, height, base] = [240, 84, 66];
  const most = Math.max(...values);
  const points = [...degrees.map((degree, i) => [degree, values[i]]), [180, values[0]]];
  const x = (degree) => (degree / 180) * (width - 4) + 2;
  const y = (value) => base - (value / most) * (base - 6);
  const label =
    `Tuning for orientation: the channel prefers bars at ${number(preferred)}° (0° is horizontal) with ` +
    `${number(frequency)} cycles per px; its weakest orientation gives ${number((100 * Math.min(...values)) / most)} % of the best.`;
  return s(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "rx-chart" },
    s("line", { x1: 0, x2: width, y1: base, y2: base }),
    s("polyline", { points: points.map(([degree, value]) => `${x(degree)},${y(value)}`).join(" ") }),
    s("text", { x: 0, y: height - 4, "text-anchor": "start" }, "0°"),
    s("text", { x: width / 2, y: height - 4, "text-anchor": "middle" }, `prefers ${number(preferred)}°`),
    s("text", { x: width, y: height - 4, "text-anchor": "end" }, "180°"),
  );
}

// ---------------------------------------------------------------- the explorer

class Explorer {
  constructor(model, element) {
    this.model = model;
    this.manifest = model.get("manifest");
    this.layers = new Map(); // what has come, by "model/layer"
    this.waiting = new Set();
    this.errors = new Map();
    this.made = new Map(); // maximization images that were asked for, by "model/layer/channel"
    this.state = parse(model.get("state") ?? "", this.manifest);
    const asked = (model.get("state") ?? "").split("&")[0];
    this.missed = asked !== "" && asked !== format(this.state).split("&")[0];
    this.element = element;
    element.classList.add("rfviz-explorer");
    this.build();
    // JupyterLab would take keys for its own: "d d" deletes a cell. What is meant for it passes.
    if (this.manifest.live)
      element.addEventListener("keydown", (event) => {
        if (!event.ctrlKey && !event.metaKey && !event.altKey && !(event.shiftKey && event.key === "Enter")) event.stopPropagation();
      });
    this.onState = () => {
      const text = model.get("state") ?? "";
      if (text !== format(this.state)) {
        this.state = parse(text, this.manifest);
        this.show();
      }
    };
    this.onMessage = (message, buffers) => this.receive(message, buffers);
    model.on("change:state", this.onState);
    model.on("msg:custom", this.onMessage);
    model.set("state", format(this.state));
    model.save_changes();
    this.show();
  }

  close() {
    this.model.off("change:state", this.onState);
    this.model.off("msg:custom", this.onMessage);
  }

  // -------------------------------------------------------------- what is known

  title(model) {
    return this.manifest.models.find(({ key }) => key === model)?.title ?? model;
  }

  rows(model = this.state.model) {
    return this.manifest.layers.filter((row) => row.model === model);
  }

  row(model, layer) {
    return this.manifest.layers.find((row) => row.model === model && row.key === layer);
  }

  name(model, layer, channel) {
    return `${this.title(model)}, ${this.row(model, layer).title}, channel ${channel}`;
  }

  // -------------------------------------------------------------- asking and receiving

  want(model, layer) {
    const key = `${model}/${layer}`;
    if (this.layers.has(key)) return this.layers.get(key);
    if (!this.waiting.has(key) && !this.errors.has(key)) {
      this.waiting.add(key);
      this.model.send({ kind: "layer", model, layer });
    }
    return null;
  }

  async receive(message, buffers) {
    if (message.kind === "error") {
      this.waiting.delete(message.key);
      this.errors.set(message.key, message.text);
      this.say(message.text);
      this.show();
    } else if (message.kind === "layer") {
      try {
        const [cells, sources] = message.sheets ?? buffers;
        // The sheet of sources is only fetched when a place is to be shown, after the first picture.
        let promised = null;
        const forget = (error) => {
          promised = null; // to be fetched again
          throw error;
        };
        const fetched = () => (promised ??= loaded(sources).catch(forget));
        const layer = { facts: message.facts, cells: await loaded(cells), key: message.key, sources: fetched };
        this.layers.set(message.key, layer);
      } catch {
        this.errors.set(message.key, `The pictures of ${message.key} could not be read.`);
      }
      this.waiting.delete(message.key);
      const shown = [this.state.model, this.state.other?.model].map((model) => `${model}/${this.state.layer}`);
      if (shown.includes(message.key)) this.show();
      else for (const fill of this.strips) fill();
    } else if (message.kind === "maximized") {
      try {
        this.made.set(message.key, { ...message, image: await loaded(buffers[0]) });
        this.refills.get(message.key)?.();
        this.say(message.text);
      } catch {
        this.say("The picture could not be read.");
      }
    } else if (message.kind === "failed") this.say(message.text);
  }

  // -------------------------------------------------------------- the controls, built once

  build() {
    const { manifest } = this;
    const change = (values) => this.change(values);
    this.modelMenu = this.menu("Network", manifest.models.map(({ key, title }) => [key, title]), (model) => change({ model }));
    this.layerMenu = this.menu("Layer", [], (layer) => change({ layer }));
    this.channelField = h("input", {
      type: "number", min: 0, step: 1, id: unique("channel"), inputmode: "numeric",
      oninput: () => this.typed(this.channelField, (channel) => change({ channel, stimulus: 0 })),
      onchange: () => this.typedLast(this.channelField, this.state.channel),
    });
    const button = (text, action, title) => h("button", { type: "button", onclick: action, title }, text);
    this.before = button("◂ Layer before", () => this.step(-1), "The same channel in the layer before");
    this.after = button("Layer after ▸", () => this.step(1), "The same channel in the layer after");
    const random = button("Random", () => {
      const shown = this.shown();
      if (shown.length) change({ channel: shown[Math.floor(Math.random() * shown.length)], stimulus: 0 });
    }, "A random channel among those in the list");
    this.besideBox = h("input", {
      type: "checkbox", id: unique("beside"),
      onchange: () => {
        const { model, layer, channel } = this.state;
        const other = manifest.models.find(({ key }) => key !== model && this.row(key, layer)); // others may be shorter
        change({ other: this.besideBox.checked && other ? { model: other.key, channel } : null });
      },
    });
    this.otherField = h("input", {
      type: "number", min: 0, step: 1, id: unique("other"), inputmode: "numeric",
      oninput: () => this.typed(this.otherField, (channel) => change({ other: { ...this.state.other, channel } })),
      onchange: () => this.state.other && this.typedLast(this.otherField, this.state.other.channel),
    });
    this.otherLabel = h("label", { for: this.otherField.id }, "");
    this.other = h("span", { class: "rx-field" }, this.otherLabel, this.otherField);
    this.beside = h("span", { class: "rx-check" }, this.besideBox, h("label", { for: this.besideBox.id }, "side by side"));
    const copy = manifest.live ? null : button("Copy link", () => this.copy(), "A link to exactly this view");
    this.status = h("p", { class: "rx-status", role: "status", "aria-live": "polite" });
    this.panels = h("div", { class: "rx-panels" });
    this.finder = this.buildFinder();
    this.element.append(
      h(
        "div", { class: "rx-bar", role: "group", "aria-label": "What to show" },
        this.modelMenu.field, this.layerMenu.field,
        h("span", { class: "rx-field" }, h("label", { for: this.channelField.id }, "Channel"), this.channelField),
        h("span", { class: "rx-buttons" }, this.before, this.after, random, copy),
        manifest.models.length > 1 ? this.beside : null, this.other,
      ),
      this.finder, this.status, this.panels,
    );
  }

  menu(label, options, action) {
    const select = h("select", { id: unique(label.toLowerCase().replaceAll(" ", "-")), onchange: () => action(select.value) });
    const field = h("span", { class: "rx-field" }, h("label", { for: select.id }, label), select);
    const fill = (entries) => select.replaceChildren(...entries.map(([value, text]) => h("option", { value }, text)));
    fill(options);
    return { field, select, fill };
  }

  buildFinder() {
    const statistics = this.manifest.statistics.map(({ key, name }) => [key, name]);
    const change = (values) => this.change(values);
    // Of a statistic, people want to see the most; of numbers, the first.
    const order = (sort) => (sort === "channel" ? "up" : "down");
    this.sortMenu = this.menu(
      "Sort by", [["channel", "channel number"], ...statistics], (sort) => change({ sort, order: order(sort) }),
    );
    this.orderMenu = this.menu("Order", [["up", "smallest first"], ["down", "largest first"]], (order) => change({ order }));
    this.onlyMenu = this.menu("Show", [], (only) => change({ only }));
    this.limitField = h("input", {
      type: "number", step: "any", id: unique("limit"),
      oninput: () => change({ limit: this.limitField.value }),
    });
    this.limitLabel = h("label", { for: this.limitField.id }, "Limit");
    this.limit = h("span", { class: "rx-field" }, this.limitLabel, this.limitField);
    this.pictureMenu = this.menu("Picture", [], (picture) => change({ picture }));
    this.explained = h("p", { class: "rx-note" });
    this.heading = h("h3", { id: unique("finder") });
    this.tiles = h("div", {
      class: "rx-tiles", role: "listbox", "aria-labelledby": this.heading.id, tabindex: -1,
      onkeydown: (event) => this.key(event),
      onclick: (event) => {
        const tile = event.target.closest("[data-channel]");
        if (tile) this.change({ channel: Number(tile.dataset.channel), stimulus: 0 });
      },
    });
    return h(
      "section", { class: "rx-finder", "aria-labelledby": this.heading.id }, this.heading,
      h(
        "div", { class: "rx-bar", role: "group", "aria-label": "Sort and filter" },
        this.sortMenu.field, this.orderMenu.field, this.onlyMenu.field, this.limit, this.pictureMenu.field,
      ),
      this.explained, this.tiles,
    );
  }

  // -------------------------------------------------------------- what people do

  change(values) {
    const before = this.state;
    const wanted = { ...before, ...values };
    if (!["least", "most"].includes(wanted.only)) wanted.limit = "";
    if (before.other?.model === wanted.model) {
      wanted.channel = before.other.channel; // the two sides change places
      wanted.other = { model: before.model, channel: before.channel };
    }
    this.state = repaired(wanted, this.manifest);
    this.errors.clear(); // what failed is asked for again
    this.model.set("state", format(this.state));
    this.model.save_changes();
    this.show();
  }

  // A number that is being typed; one that is not there is said to be so, and nothing changes.
  typed(field, action) {
    const { value, valueAsNumber, max } = field;
    const there = Number.isInteger(valueAsNumber) && valueAsNumber >= 0 && valueAsNumber <= Number(max);
    field.setAttribute("aria-invalid", String(value !== "" && !there));
    if (there) action(valueAsNumber);
    else if (value !== "") this.say(`There is no channel ${value}: this layer has channels 0 to ${max}.`);
  }

  // Once a field is left, it shows the channel that is shown.
  typedLast(field, channel) {
    field.value = channel;
    field.setAttribute("aria-invalid", "false");
  }

  step(by) {
    const rows = this.rows();
    const next = rows[rows.findIndex(({ key }) => key === this.state.layer) + by];
    if (next) this.change({ layer: next.key });
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const tiles = [...this.tiles.children];
    const here = tiles.indexOf(event.target.closest("[data-channel]"));
    if (here < 0) return;
    const top = tiles[0].offsetTop;
    const across = tiles.filter((tile) => tile.offsetTop === top).length;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, Home: -here, End: tiles.length - 1 - here };
    this.wantsTile = true; // the tile may only come with its layer
    if (event.key === "PageDown" || event.key === "PageUp") this.step(event.key === "PageDown" ? 1 : -1);
    else if (event.key in moves) {
      const next = tiles[here + moves[event.key]];
      if (next) this.change({ channel: Number(next.dataset.channel), stimulus: 0 });
    } else return;
    event.preventDefault();
    this.focusTile();
  }

  focusTile() {
    const tile = this.tiles.querySelector("[tabindex='0']");
    (tile ?? this.tiles).focus();
    if (tile) this.wantsTile = false;
  }

  async copy() {
    const link = location.href;
    try {
      await navigator.clipboard.writeText(link);
      this.say(`Copied: ${link}`);
    } catch {
      // Without permission there is still the address itself.
      this.say(`Copy the address of this page: ${link}`);
    }
  }

  say(text) {
    this.status.textContent = text;
  }

  // -------------------------------------------------------------- drawing

  show() {
    const { state } = this;
    const row = this.row(state.model, state.layer);
    this.modelMenu.select.value = state.model;
    this.layerMenu.fill(this.rows().map(({ key, title, size }) => [key, title === key ? `${key}, ${size} px` : `${title} (${key}), ${size} px`]));
    this.layerMenu.select.value = state.layer;
    this.channelField.max = row.channels - 1;
    if (document.activeElement !== this.channelField) this.channelField.value = state.channel;
    const rows = this.rows();
    // Not disabled, which would take the focus away from a button that has just been pressed.
    this.before.setAttribute("aria-disabled", String(rows[0] === row));
    this.after.setAttribute("aria-disabled", String(rows.at(-1) === row));
    this.besideBox.checked = state.other !== null;
    this.other.hidden = state.other === null;
    if (state.other) {
      this.otherLabel.textContent = `Channel of ${this.title(state.other.model)}`;
      this.otherField.max = this.row(state.other.model, state.layer).channels - 1;
      if (document.activeElement !== this.otherField) this.otherField.value = state.other.channel;
    }
    const sides = [{ model: state.model, channel: state.channel, first: true }];
    if (state.other) sides.push({ ...state.other, first: false });
    this.strips = []; // what is filled as further layers come, without touching the rest
    this.refills = new Map(); // and as maximization images come
    const within = [...this.panels.children].findIndex((panel) => panel.contains(document.activeElement));
    this.panels.replaceChildren(...sides.map((side) => this.panel(side)));
    // What had the focus is gone with the channel before.
    if (within >= 0) this.panels.children[Math.min(within, sides.length - 1)].querySelector("h3").focus();
    this.panels.classList.toggle("rx-two", sides.length > 1);
    this.showFinder();
    const layer = this.layers.get(`${state.model}/${state.layer}`);
    if (layer) {
      const seen = format(state);
      if (seen !== this.said) this.say(`${this.missed ? "The address names something that is not here. " : ""}${this.summary(layer)}`);
      this.said = seen;
      this.missed = false;
      setTimeout(() => this.prepare()); // after the picture that was asked for
    }
  }

  // The same channel in the other layers: fetched once the picture asked for is there. A live kernel would have to
  // compute them, so there it takes a click.
  prepare() {
    if (this.manifest.live) return;
    for (const { model } of this.state.other ? [this.state, this.state.other] : [this.state])
      for (const { key } of this.rows(model)) this.want(model, key);
  }

  summary(layer) {
    const { model, layer: key, channel } = this.state;
    const { statistics, fires } = layer.facts.channels[channel];
    const said = fires
      ? `largest response ${number(statistics.maximum)}, ${number(statistics.firing_rate, "%")} of its neurons fire`
      : "never fires on these images";
    return `${this.name(model, key, channel)}: ${said}.`;
  }

  panel({ model, channel, first }) {
    const key = `${model}/${this.state.layer}`;
    const heading = h("h3", { id: unique("panel"), tabindex: -1 }, this.name(model, this.state.layer, channel));
    const panel = h("section", { class: "rx-panel", "aria-labelledby": heading.id, "data-view": `${key}/${channel}` }, heading);
    const layer = this.want(model, this.state.layer);
    if (!layer) {
      const words = this.errors.get(key) ?? (this.manifest.live ? "Computing; this can take a while …" : "Loading …");
      panel.append(h("p", { class: "rx-note" }, words));
      return panel;
    }
    const parts = [
      this.badges(layer, channel),
      this.pictures(layer, model, channel),
      this.stimuli(layer, model, channel, first),
      this.numbers(layer, channel),
      this.neighbours(layer, model, channel, first),
      this.otherLayers(layer, model, channel, first),
    ];
    panel.append(...parts.filter((part) => part !== null));
    return panel;
  }

  badges(layer, channel) {
    const { fires, inactive } = layer.facts.channels[channel];
    const badges = [];
    if (inactive) badges.push(["inactive", "Its response is 0 at every position of every evaluation image (Table 1)."]);
    if (!fires) badges.push(["never fires", "No neuron of it responds to any of the images in which stimuli were looked for."]);
    const line = h("p", { class: "rx-note" }, `Receptive field ${layer.facts.field.size} × ${layer.facts.field.size} px, one neuron every ${layer.facts.field.stride} px. `);
    for (const [word, title] of badges) line.append(h("strong", { class: "rx-badge", title }, word), ` ${title} `);
    if (layer.facts.cell < layer.facts.field.size) line.append(`Pictures are reduced to ${layer.facts.cell} px. `);
    return line;
  }

  pictures(layer, model, channel) {
    const figures = h("div", { class: "rx-pictures" });
    const fill = () => figures.replaceChildren(...this.figures(layer, model, channel));
    fill();
    this.refills.set(`${model}/${this.state.layer}/${channel}`, fill);
    return h("div", {}, figures, this.manifest.live ? this.maximizer(model, channel) : null);
  }

  figures(layer, model, channel) {
    const shown = Object.keys(PICTURES).filter((key) => columnOf(layer, key) >= 0 && !key.startsWith("stimulus"));
    const { fires, gains, positive, curve: values } = layer.facts.channels[channel];
    const made = this.made.get(`${model}/${this.state.layer}/${channel}`);
    const figures = [];
    for (const key of shown) {
      const average = ["mean", "stretched", "strongest"].includes(key);
      if (average && !fires) continue;
      const { size } = layer.facts.columns[columnOf(layer, key)];
      const side = key === "filter" ? size : layer.facts.field.size;
      const alt = `${this.name(model, this.state.layer, channel)}: ${PICTURES[key]}, ${side} px`;
      let note = `${side} px`;
      if (key === "mean") note = `N = ${number(positive)}`;
      else if (gains?.[key] !== undefined) note = `gain ${number(gains[key])}`;
      const again = key === "maximization" ? made : null;
      const canvas = picture(layer, key, channel, again ? `${alt}, made with ${again.made_with}` : alt);
      if (again) {
        fit(canvas, again.image.width, again.image.height, ROOM.picture);
        canvas.getContext("2d").drawImage(again.image, 0, 0);
        note = again.made_with;
      }
      figures.push(
        h("figure", { class: "rx-picture", "data-picture": key }, canvas, h("figcaption", {}, PICTURES[key], h("small", {}, note))),
      );
    }
    const what = layer.facts.objective === "response" ? "response" : "activation before the ReLU";
    figures.push(h("figure", { class: "rx-curve" }, curve(made?.curve ?? values, what), h("figcaption", {}, `${what}, by step`)));
    return figures;
  }

  stimuli(layer, model, channel, first) {
    const { stimuli } = layer.facts.channels[channel];
    if (!stimuli.length) return h("p", { class: "rx-note" }, "It has no preferred stimuli: no neuron responds to any image.");
    const chosen = Math.min(first ? this.state.stimulus : 0, stimuli.length - 1);
    const place = h("canvas", { role: "img", class: "rx-place" });
    const words = h("p", { class: "rx-note" });
    const show = (rank) => {
      const [value, source, top, left, bottom, right] = stimuli[rank];
      const image = layer.facts.sources[source];
      drawPlace(place, layer, stimuli[rank]).catch(() => (words.textContent = "The image it was in could not be read."));
      const where = `rows ${top} to ${bottom - 1}, columns ${left} to ${right - 1} of image ${image.image} (${image.height} × ${image.width} px)`;
      words.textContent =
        `${ORDINALS[rank] ?? `${rank + 1}th strongest`}: response ${number(value)}; ${where}` +
        `${image.class === null ? "" : `; class: ${image.class}`}`;
      set(place, { "aria-label": `Where it was: the frame is the receptive field, to scale. ${words.textContent}` });
    };
    const buttons = stimuli.map(([value], rank) => {
      const column = columnOf(layer, `stimulus ${rank}`);
      const canvas = h("canvas", { "aria-hidden": "true" });
      draw(canvas, layer, column, channel, ROOM.stimulus);
      const label = `${this.name(model, this.state.layer, channel)}: ${ORDINALS[rank] ?? `${rank + 1}th strongest`} stimulus, ${layer.facts.field.size} px, response ${number(value)}`;
      return h(
        "button", {
          type: "button", class: "rx-stimulus", "aria-label": label, "aria-pressed": String(rank === chosen),
          onclick: (event) => {
            show(rank);
            for (const each of event.currentTarget.parentElement.children) each.setAttribute("aria-pressed", "false");
            event.currentTarget.setAttribute("aria-pressed", "true");
            if (first) {
              this.state.stimulus = rank;
              this.said = format(this.state);
              this.model.set("state", this.said);
              this.model.save_changes();
            }
            this.say(words.textContent);
          },
        }, canvas, h("small", { "aria-hidden": "true" }, number(value)),
      );
    });
    show(chosen);
    return h(
      "div", { class: "rx-stimuli" },
      h("div", {}, h("h4", {}, `Preferred stimuli (${stimuli.length}), with their responses`), h("div", { class: "rx-strip" }, buttons)),
      h("div", { class: "rx-where" }, h("h4", {}, "Where it was"), place, words),
    );
  }

  numbers(layer, channel) {
    const facts = layer.facts.channels[channel];
    const list = h(
      "dl", { class: "rx-numbers" },
      this.manifest.statistics.filter(({ key }) => facts.statistics[key] !== null || !NEEDS_GRATINGS.includes(key)).map(({ key, name, unit, explanation }) =>
        h("div", {}, h("dt", { title: explanation }, name), h("dd", {}, number(facts.statistics[key], unit)))),
    );
    const bars = histogram(layer.facts, facts);
    const tuning = facts.orientation ? orientationCurve(facts.orientation) : null;
    const chart = (drawing, words) => drawing && h("figure", { class: "rx-curve" }, drawing, h("figcaption", {}, words));
    return h(
      "div", { class: "rx-responses" }, h("h4", {}, `Responses to ${number(layer.facts.images)} images, and to gratings`), list,
      h(
        "div", { class: "rx-charts" },
        chart(bars, "how many neurons respond how strongly"),
        chart(tuning, `response by orientation of a grating${facts.colour ? `; colour: ${facts.colour}` : ""}`),
      ),
    );
  }

  // A small picture that leads to another channel or layer.
  link(layer, model, key, channel, words, first) {
    const canvas = h("canvas", { "aria-hidden": "true" });
    draw(canvas, layer, this.tilePicture(layer, channel), channel, ROOM.stimulus);
    const go = () => this.change(first ? { layer: key, channel, stimulus: 0 } : { layer: key, other: { model, channel } });
    return h("button", { type: "button", class: "rx-stimulus", onclick: go, "aria-label": `${this.name(model, key, channel)}, ${words}` }, canvas, h("small", { "aria-hidden": "true" }, words));
  }

  neighbours(layer, model, channel, first) {
    const { nearest } = layer.facts.channels[channel];
    if (!nearest.length) return null;
    return h(
      "div", {}, h("h4", {}, "Nearest channels of the layer, by correlation of the mean over the strongest"),
      h("div", { class: "rx-strip" }, nearest.map(([other, r]) => this.link(layer, model, this.state.layer, other, `${other}: r ${r.toFixed(2)}`, first))),
    );
  }

  otherLayers(layer, model, channel, first) {
    const rows = this.rows(model).filter(({ channels }) => channels === layer.facts.channels.length);
    if (rows.length < 2 || rows.length > 8) return null;
    const strip = h("div", { class: "rx-strip" });
    const entry = ({ key, title }) => {
      const there = this.layers.get(`${model}/${key}`);
      if (!there) return h("button", { type: "button", class: "rx-stimulus", onclick: () => this.change({ layer: key }) }, title);
      const link = this.link(there, model, key, channel, title, first);
      if (key === this.state.layer) link.setAttribute("aria-current", "true");
      return link;
    };
    const fill = () => {
      const focused = [...strip.children].indexOf(document.activeElement);
      strip.replaceChildren(...rows.map(entry));
      strip.children[focused]?.focus();
    };
    fill();
    this.strips.push(fill);
    return h("div", {}, h("h4", {}, `Channel ${channel} from layer to layer`), strip);
  }

  // -------------------------------------------------------------- the list of channels

  tilePicture(layer, channel) {
    const wanted = [this.state.picture, "strongest", "stretched", "maximization"].find((key) => key && columnOf(layer, key) >= 0);
    const average = ["mean", "stretched", "strongest", "stimulus 0"].includes(wanted);
    return average && !layer.facts.channels[channel].fires ? null : columnOf(layer, wanted);
  }

  value(facts, channel) {
    return this.state.sort === "channel" ? channel : facts.channels[channel].statistics[this.state.sort];
  }

  silent(facts, channel) {
    const { inactive, fires } = facts.channels[channel];
    return inactive ?? !fires;
  }

  shown() {
    const layer = this.layers.get(`${this.state.model}/${this.state.layer}`);
    if (!layer) return [];
    const { only, limit, order } = this.state;
    const { facts } = layer;
    const kept = facts.channels.map((_, channel) => channel).filter((channel) => {
      const value = this.value(facts, channel);
      if (only === "inactive") return this.silent(facts, channel);
      if (only === "active") return !this.silent(facts, channel);
      if (only === "all" || limit === "") return true;
      return value !== null && (only === "least" ? value >= Number(limit) : value <= Number(limit));
    });
    const direction = order === "down" ? -1 : 1;
    return kept.sort((a, b) => {
      const [first, second] = [this.value(facts, a), this.value(facts, b)];
      if (first === null || second === null) return (first === null) - (second === null) || a - b; // unknown goes last
      return direction * (first - second) || a - b;
    });
  }

  showFinder() {
    const { state } = this;
    const layer = this.layers.get(`${state.model}/${state.layer}`);
    this.sortMenu.select.value = state.sort;
    this.orderMenu.select.value = state.order;
    const defined = layer?.facts.channels[0]?.inactive !== null; // inactivity is, of the first pooling layer
    const all = layer ? layer.facts.channels.map((_, channel) => channel) : [];
    const silent = all.filter((channel) => this.silent(layer.facts, channel)).length;
    this.onlyMenu.fill([
      ["all", "all channels"],
      ["inactive", `${defined ? "inactive only" : "those that never fire"} (${silent || "none"})`],
      ["active", `${defined ? "active only" : "those that fire"} (${all.length - silent || "none"})`],
      ["least", "at least"],
      ["most", "at most"],
    ]);
    this.onlyMenu.select.value = state.only;
    this.limit.hidden = !["least", "most"].includes(state.only);
    if (document.activeElement !== this.limitField) this.limitField.value = state.limit;
    const statistic = this.manifest.statistics.find(({ key }) => key === state.sort);
    this.limitLabel.textContent = `Limit: ${statistic ? statistic.name : "channel number"}${statistic?.unit ? ` (${statistic.unit})` : ""}`;
    const explained = statistic ? `${statistic.name[0].toUpperCase()}${statistic.name.slice(1)}: ${statistic.explanation}. ` : "";
    this.explained.textContent = `${explained}Arrow keys move through the list, Page Up and Page Down through the layers.`;
    if (!layer) {
      this.tiles.replaceChildren();
      this.heading.textContent = `Channels of ${this.title(state.model)}, ${this.row(state.model, state.layer).title}`;
      this.drawn = null;
      return;
    }
    const channels = this.shown();
    this.heading.textContent =
      `Channels of ${this.title(state.model)}, ${this.row(state.model, state.layer).title}: ` +
      `${channels.length === layer.facts.channels.length ? "all" : `${channels.length} of`} ${layer.facts.channels.length}`;
    const keys = Object.keys(PICTURES).filter((key) => columnOf(layer, key) >= 0);
    this.pictureMenu.fill(keys.map((key) => [key, PICTURES[key]]));
    this.pictureMenu.select.value = keys.includes(state.picture) ? state.picture : keys.find((key) => key === "strongest") ?? keys[0];
    // Tiles are drawn anew only when the list changes, not with every channel that is picked.
    const drawn = JSON.stringify([layer.key, channels, state.sort, this.pictureMenu.select.value]);
    if (drawn !== this.drawn) {
      this.tiles.style.setProperty("--rx-tile", `${Math.max(ROOM.tile, layer.facts.cell) + 8}px`);
      this.tiles.replaceChildren(...channels.map((channel) => this.tile(layer, channel, statistic)));
      this.drawn = drawn;
    }
    let current = null;
    for (const tile of this.tiles.children) {
      const selected = Number(tile.dataset.channel) === state.channel;
      tile.setAttribute("aria-selected", String(selected));
      tile.tabIndex = -1;
      if (selected) current = tile;
    }
    current ??= this.tiles.firstElementChild;
    if (current) current.tabIndex = 0;
    else this.tiles.replaceChildren(h("p", { class: "rx-note", role: "option", "aria-selected": "false" }, "No channel is like that."));
    if (!channels.length) this.drawn = null;
    if (this.wantsTile && [this.tiles, document.body].includes(document.activeElement)) this.focusTile();
  }

  tile(layer, channel, statistic) {
    const canvas = h("canvas", { "aria-hidden": "true" });
    draw(canvas, layer, this.tilePicture(layer, channel), channel, ROOM.tile);
    const silent = this.silent(layer.facts, channel);
    const value = statistic ? number(layer.facts.channels[channel].statistics[statistic.key], statistic.unit) : "";
    const label = `channel ${channel}${statistic ? `, ${statistic.name} ${value}` : ""}${silent ? `, ${layer.facts.channels[channel].inactive === null ? "never fires" : "inactive"}` : ""}`;
    return h(
      "div", { role: "option", class: silent ? "rx-tile rx-silent" : "rx-tile", "data-channel": channel, "aria-label": label },
      canvas, h("span", { "aria-hidden": "true" }, String(channel), statistic ? h("small", {}, value) : null),
    );
  }

  // -------------------------------------------------------------- only with a kernel

  maximizer(model, channel) {
    const fields = {};
    const field = (key, label, value, attributes) => {
      fields[key] = h("input", { type: "number", required: true, id: unique(key), value: this.asked?.[key] ?? value, ...attributes });
      return h("span", { class: "rx-field" }, h("label", { for: fields[key].id }, label), fields[key]);
    };
    const form = h(
      "form", {
        class: "rx-bar rx-maximizer", "aria-label": "Maximize again",
        onsubmit: (event) => {
          event.preventDefault();
          this.asked = Object.fromEntries(Object.entries(fields).map(([key, input]) => [key, input.valueAsNumber]));
          this.say("Maximizing …");
          this.model.send({ kind: "maximize", model, layer: this.state.layer, channel, ...this.asked });
        },
      },
      field("steps", "Steps", 31, { min: 1, max: 2000, step: 1 }),
      field("learning_rate", "Learning rate", 0.1, { min: 0, step: "any" }),
      field("l2", "L2 weight", 1e-6, { min: 0, step: "any" }),
      field("variation", "Total variation weight", 0, { min: 0, step: "any" }),
      field("jitter", "Jitter (px)", 0, { min: 0, max: 32, step: 1 }),
      h("button", { type: "submit" }, "Maximize again"),
    );
    return form;
  }
}

// A sheet comes as an address or as bytes; it is decoded before anything is drawn from it.
async function loaded(sheet) {
  const image = new Image();
  const own = typeof sheet === "string" ? null : URL.createObjectURL(new Blob([sheet], { type: "image/webp" }));
  image.src = own ?? sheet;
  try {
    await image.decode();
  } finally {
    if (own) URL.revokeObjectURL(own);
  }
  return image;
}

function render({ model, el }) {
  const explorer = new Explorer(model, el);
  return () => explorer.close();
}

export default { render };
