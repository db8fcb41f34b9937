// Shows the video, or where the browser cannot play it the pictures that its memory keeps; and takes stills of it.

import { byId } from "/page/dom.js";
import { clock } from "/page/format.js";

const STILL_WIDTH = 160;
const PATIENCE_MS = 8000;

export class Player {
  // renew: asks the server for the video again, since the tickets of its addresses end.
  constructor({ renew, onTime }) {
    [this.video, this.still, this.note] = [byId("player"), byId("still"), byId("player-note")];
    this.onTime = onTime;
    this.shown = null;
    this.canPlay = true;
    this.time = 0;
    for (const name of ["timeupdate", "seeking", "seeked", "loadedmetadata"]) {
      this.video.addEventListener(name, () => this.moved(this.video.currentTime));
    }
    this.video.addEventListener("error", () => this.failed(renew));
  }

  show(video) {
    if (this.shown?.id === video?.id) {
      const isNew = video?.status === "ready" && this.shown.status !== "ready";
      this.shown = video;
      if (isNew && !this.canPlay) this.showStill(this.time);
      return;
    }
    this.shown = video;
    this.renewed = false;
    this.canPlay = true;
    this.time = 0;
    this.note.textContent = "";
    [this.video.hidden, this.still.hidden] = [false, true];
    if (video === null) this.video.removeAttribute("src");
    else this.video.src = video.media_url;
    this.stills = video === null ? null : new Stills(video.media_url);
    this.video.load();
  }

  get duration() {
    return Number.isFinite(this.video.duration) ? this.video.duration : (this.shown?.info.duration_s ?? 0);
  }

  seek(seconds) {
    const time = Math.max(0, Math.min(seconds, this.duration || seconds));
    if (this.canPlay) {
      this.video.currentTime = time;
      return;
    }
    this.showStill(time);
    this.moved(time);
  }

  showStill(time) {
    const isReady = this.shown.status === "ready";
    this.note.textContent = `This browser cannot play this video. The pictures that its memory keeps are shown ${
      isReady ? "instead" : "when it has been read"}.`;
    [this.video.hidden, this.still.hidden] = [true, !isReady];
    if (!isReady) return;
    this.still.src = `${this.shown.frames_url}${this.shown.frames_url.includes("?") ? "&" : "?"}t=${time.toFixed(2)}`;
    this.still.alt = `The picture kept nearest to ${clock(time)}`;
  }

  moved(time) {
    this.time = time;
    this.onTime(time);
  }

  async failed(renew) {
    const video = this.shown;
    if (video === null || !this.video.hasAttribute("src")) return;
    const { time } = this;
    if (!this.renewed) {
      this.renewed = true;
      const found = await renew(video.id);
      if (found === null || this.shown?.id !== video.id) return;
      this.shown = found;
      this.video.src = found.media_url;
      this.stills = new Stills(found.media_url);
      this.video.currentTime = time;
      return;
    }
    this.canPlay = false;
    this.stills = null;
    this.showStill(time);
  }
}

// Pictures of moments, taken one after the other from a second player that nobody sees.
class Stills {
  constructor(address) {
    this.address = address;
    this.found = new Map();
    this.queue = Promise.resolve();
  }

  at(time) {
    const name = time.toFixed(2);
    if (!this.found.has(name)) {
      this.queue = this.queue.then(() => this.take(time)).catch(() => null);
      this.found.set(name, this.queue);
    }
    return this.found.get(name);
  }

  async take(time) {
    if (!this.video) {
      this.video = document.createElement("video");
      [this.video.muted, this.video.preload, this.video.src] = [true, "metadata", this.address];
      await happened(this.video, "loadedmetadata");
    }
    const moved = happened(this.video, "seeked");
    this.video.currentTime = Math.min(time, Math.max(0, this.video.duration - 0.05));
    await moved;
    const canvas = document.createElement("canvas");
    const scale = STILL_WIDTH / this.video.videoWidth;
    [canvas.width, canvas.height] = [STILL_WIDTH, Math.max(1, Math.round(this.video.videoHeight * scale))];
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    return canvas;
  }
}

function happened(target, name) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${name}`)), PATIENCE_MS);
    target.addEventListener(name, () => { clearTimeout(timer); resolve(); }, { once: true });
    target.addEventListener("error", () => { clearTimeout(timer); reject(new Error("not playable")); }, { once: true });
  });
}
