// The static host: what a live notebook's kernel would answer, read from files beside the page. A classic script, because
// browsers load neither modules nor data from file://. The place in the book is kept in the address.

(() => {
  const here = new URL(".", document.currentScript.src);
  const book = globalThis.rfvizExplorer;

  const file = (key) => encodeURIComponent(key.replace("/", "-"));

  function load(key) {
    return new Promise((resolve, reject) => {
      if (book.data[key]) return resolve(book.data[key]);
      const script = document.createElement("script");
      script.src = new URL(`${file(key)}.js`, here);
      script.onload = () => resolve(book.data[key]);
      script.onerror = () => reject(new Error(`${script.src} could not be read`));
      document.head.append(script);
    });
  }

  class Host {
    constructor(element) {
      this.values = { manifest: { ...book.data.manifest, live: false }, state: this.address() ?? "" };
      this.listeners = {};
      // From a link to a channel, or back and forth. Links to other parts of the page are none of ours.
      addEventListener("hashchange", () => {
        const state = this.address();
        if (state === null) return;
        this.values.state = state;
        this.emit("change:state");
        element.scrollIntoView();
        element.querySelector(".rx-panel h3").focus({ preventScroll: true });
      });
    }

    address() {
      const text = location.hash.slice(1);
      return book.data.manifest.models.some(({ key }) => text.startsWith(`${key}/`)) ? text : null;
    }

    get(name) {
      return this.values[name];
    }

    set(name, value) {
      this.values[name] = value;
    }

    save_changes() {
      const { state } = this.values;
      if (location.hash.slice(1) === state) return;
      if (this.address() === null && location.hash !== "") return; // a link to another part of the page stays
      // The browser's own buttons lead back to what was looked at, but not through every step of an arrow key held down.
      const path = (text) => text.split("&")[0];
      const looked = this.pushed !== undefined && performance.now() - this.pushed > 800;
      if (looked && path(location.hash.slice(1)) !== path(state)) history.pushState(null, "", `#${state}`);
      else history.replaceState(null, "", `#${state}`);
      this.pushed = performance.now();
    }

    on(event, listener) {
      (this.listeners[event] ??= []).push(listener);
    }

    off() {}

    emit(event, ...values) {
      for (const listener of this.listeners[event] ?? []) listener(...values);
    }

    async send({ model, layer }) {
      const key = `${model}/${layer}`;
      try {
        const facts = await load(key);
        const sheets = ["", "-stimuli", "-sources", "-maps"].map((part) => new URL(`${file(key)}${part}.webp`, here).href);
        this.emit("msg:custom", { kind: "layer", key, facts, sheets }, []);
      } catch (error) {
        this.emit("msg:custom", { kind: "error", key, text: error.message }, []);
      }
    }
  }

  for (const element of document.querySelectorAll(".rfviz-explorer")) {
    element.replaceChildren();
    const host = new Host(element);
    const asked = host.address() !== null; // a link to a channel leads to where it is shown
    book.render({ model: host, el: element });
    if (asked) addEventListener("load", () => element.scrollIntoView()); // the page is as long as it will be
  }
})();
