// The list of videos: those on the server, and those on their way there.

import { byId, make, tell } from "/page/dom.js";
import { bytes, clock, percent } from "/page/format.js";
import * as api from "/page/api.js";

const LOOK_MS = 500;
const LOOK_HIDDEN_MS = 4000;
const isBusy = (video) => video.status === "queued" || video.status === "running" || video.status === "sending";

export class Videos {
  // onChange: something in the list is other than before. onChoose: a video was chosen. onError: a request failed.
  constructor({ onChange, onChoose, onGone, onError }) {
    Object.assign(this, { onChange, onChoose, onGone, onError });
    [this.stored, this.sending, this.chosen, this.timer, this.told] = [[], [], null, null, new Map()];
    this.count = 0;
  }

  all() { return [...this.sending, ...this.stored]; }
  find(id) { return this.all().find((video) => video.id === id) ?? null; }

  async refresh() {
    this.stored = (await api.getJson("/v1/videos")).data;
    this.draw();
    this.watch();
  }

  // Fetches one video anew; none if it is not to be had.
  async renew(id) {
    try {
      const found = await api.getJson(`/v1/videos/${id}`);
      this.stored = this.stored.map((video) => (video.id === id ? found : video));
      return found;
    } catch {
      return null;
    }
  }

  watch() {
    clearTimeout(this.timer);
    const busy = this.stored.filter(isBusy);
    if (!busy.length) return;
    this.timer = setTimeout(async () => {
      try {
        this.stored = (await api.getJson("/v1/videos")).data;
        for (const video of busy) this.announce(this.find(video.id));
        this.draw();
        this.watch();
      } catch (error) {
        this.onError(error, "The videos could not be listed");
      }
    }, document.hidden ? LOOK_HIDDEN_MS : LOOK_MS);
  }

  announce(video) {
    if (video === null) return;
    const quarter = Math.floor(video.progress.share * 4);
    const now = isBusy(video) ? `${video.name}: ${percent(quarter / 4)} read` : `${video.name}: ${video.status}`;
    if ((quarter > 0 || !isBusy(video)) && this.told.get(video.id) !== now) tell(now);
    this.told.set(video.id, now);
  }

  async add(files) {
    for (const file of files) await this.addOne(file);
  }

  async addOne(file) {
    this.count += 1;
    const row = { id: `sending-${this.count}`, name: file.name, status: "sending", bytes: file.size, error: null,
      info: {}, progress: { share: 0, stage: "sending", sent: 0, total: file.size } };
    const { promise, abort } = api.upload(file, (sent, total) => {
      Object.assign(row.progress, { share: total ? sent / total : 0, sent, total });
      this.draw();
    });
    row.abort = abort;
    this.sending.push(row);
    this.choose(row.id);
    tell(`Sending ${file.name}`);
    let stored = null;
    try {
      stored = await promise;
    } catch (error) {
      if (error.name !== "AbortError") this.onError(error, `${file.name} could not be added`);
    }
    this.sending = this.sending.filter((other) => other !== row);
    if (stored !== null) this.stored = [stored, ...this.stored.filter((video) => video.id !== stored.id)];
    if (this.chosen === row.id) this.choose(stored?.id ?? this.all()[0]?.id ?? null);
    else this.draw();
    this.watch();
  }

  choose(id) {
    this.chosen = id;
    this.draw();
    this.onChoose(this.find(id));
  }

  async remove(video) {
    if (video.status === "sending") {
      video.abort();
      return;
    }
    if (!(await confirmed(`“${video.name}” and all that was read of it are deleted from the server. `
      + "What was asked of it is forgotten here."))) return;
    try {
      await api.remove(`/v1/videos/${video.id}`);
    } catch (error) {
      if (error.status !== 404) return this.onError(error, `${video.name} could not be deleted`);
    }
    this.stored = this.stored.filter((other) => other.id !== video.id);
    this.onGone(video);
    tell(`${video.name} is deleted`);
    if (this.chosen === video.id) this.choose(this.all()[0]?.id ?? null);
    else this.draw();
    (byId("list").querySelector("button") ?? byId("add")).focus();
  }

  draw() {
    const rows = new Map([...byId("list").children].map((row) => [row.dataset.id, row]));
    const wanted = this.all().map((video) => this.row(rows.get(video.id), video));
    for (const [id, row] of rows) if (this.find(id) === null) row.remove();
    wanted.forEach((row, place) => {
      const there = byId("list").children[place];
      if (there !== row) byId("list").insertBefore(row, there ?? null);
    });
    this.onChange();
  }

  // Changes a row in place, so that what has the focus keeps it.
  row(row, video) {
    if (!row) {
      row = make("li", { "data-id": video.id },
        make("button", { type: "button", class: "video", onclick: () => this.choose(video.id) },
          make("span", { class: "thumb" }),
          make("span", { class: "name", title: video.name }, video.name), make("span", { class: "state" })),
        make("button", { type: "button", class: "remove", onclick: () => this.remove(this.find(video.id)) }, "×"));
    }
    const [button, remove] = row.children;
    const [thumb, , state] = button.children;
    const word = video.status === "sending" ? "Stop sending" : "Delete";
    remove.setAttribute("aria-label", `${word} ${video.name}`);
    if (video.id === this.chosen) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    state.textContent = stateOf(video);
    state.className = `state ${video.status}`;
    if (video.status === "ready" && !thumb.hasChildNodes()) {
      const address = `${video.frames_url}${video.frames_url.includes("?") ? "&" : "?"}t=0`;
      thumb.append(make("img", { src: address, alt: "", width: 56, height: 42, loading: "lazy" }));
    }
    return row;
  }
}

function stateOf(video) {
  if (video.status === "ready") return clock(video.info.duration_s);
  if (video.status === "failed") return "could not be read";
  if (video.status === "queued") return "waits";
  return `${video.status === "sending" ? "sending" : "reading"} ${percent(video.progress.share)}`;
}

// What a video is doing, in words, and how much of it is done; none when it is ready or failed.
export function workOf(video) {
  const { stage, share, sent, total, frames, frames_done: done } = video.progress;
  if (video.status === "sending") {
    if (sent >= total) return { text: "The server is checking it", share: null };
    return { text: `Sending: ${bytes(sent)} of ${bytes(total)}`, share };
  }
  if (video.status === "queued" || stage === "queued") return { text: "Waiting for its turn", share: null };
  if (video.status !== "running") return null;
  if (!frames) return { text: "Opening the video", share: null };
  return { text: `Reading the video: ${done} of ${frames} frames`, share };
}

export function confirmed(text) {
  const dialog = byId("confirm");
  byId("confirm-text").textContent = text;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
    byId("confirm-yes").onclick = () => dialog.close("yes");
    byId("confirm-no").onclick = () => dialog.close("no");
  });
}
