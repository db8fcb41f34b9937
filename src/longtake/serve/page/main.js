// The page: puts its parts together.

import { byId, clearWarning, tell, warn } from "/page/dom.js";
import { bytes, clock, many } from "/page/format.js";
import * as api from "/page/api.js";
import { Player } from "/page/player.js";
import { Questions } from "/page/questions.js";
import { Timeline } from "/page/timeline.js";
import { Videos, workOf } from "/page/videos.js";

const RETRY_MS = 2000;
let isWaitingForServer = false;

const player = new Player({
  renew: (id) => videos.renew(id),
  onTime: (time) => { drawTimeline(); timeline.moved(time); },
});
const timeline = new Timeline((time) => player.seek(time));
const questions = new Questions({
  onShow: () => drawTimeline(),
  onSeek: (time) => { player.seek(time); inView(); },
  onError: (error) => failed(error, ""),
  still: (time) => player.stills?.at(time),
});
const videos = new Videos({
  onChange: () => drawVideo(videos.find(videos.chosen)),
  onChoose: (video) => { if (!video || video.status !== "sending") remember(video); },
  onGone: (video) => questions.forget(video),
  onError: failed,
});

function drawTimeline() { timeline.show(player.duration, questions.active); }

// The chosen video stands in the address, so that it is still chosen when the page is loaded again.
function remember(video) {
  const wanted = video === null ? " " : `#${video.id}`;
  if (location.hash !== wanted.trim()) globalThis.history.replaceState(null, "", wanted.trim() || location.pathname);
}

function drawVideo(video) {
  byId("empty").hidden = video !== null;
  byId("watch").hidden = video === null;
  document.title = video === null ? "longtake" : `${video.name} – longtake`;
  const hasPlayer = video !== null && video.status !== "sending" && video.status !== "failed";
  player.show(hasPlayer ? video : null);
  questions.show(video);
  if (video === null) return;
  byId("title").textContent = video.name;
  byId("facts").textContent = factsOf(video);
  drawWork(video);
  byId("failed").hidden = video.status !== "failed";
  if (byId("failed").textContent !== (video.error ?? "")) byId("failed").textContent = video.error ?? "";
  document.querySelector(".screen").hidden = !hasPlayer;
  byId("timeline-box").hidden = video.status !== "ready";
  drawTimeline();
}

function drawWork(video) {
  const work = workOf(video);
  byId("work").hidden = work === null;
  if (work === null) return;
  byId("work-text").textContent = work.text;
  if (work.share === null) byId("work-share").removeAttribute("value");
  else byId("work-share").value = work.share;
}

function factsOf(video) {
  const { duration_s: duration, width, height, frames, tokens, memory_bytes: memory } = video.info;
  if (!duration) return bytes(video.bytes);
  return `${clock(duration)} · ${width} × ${height} · ${bytes(video.bytes)} · remembered by ${many(frames, "frame")} as `
    + `${many(tokens, "token")} in ${bytes(memory)}`;
}

// On a narrow screen the player may stand above what is seen.
function inView() {
  const box = byId("player").getBoundingClientRect();
  if (box.top < 0 || box.top > innerHeight * 0.7) byId("watch").scrollIntoView({ block: "start" });
}

// title: what did not happen; empty where it is told elsewhere.
async function failed(error, title) {
  if (error.status === 401) askForKey(api.hasKey() ? error.message : "");
  else if (!(error instanceof api.NoServer)) warn(title, title, error.message);
  else if (!(await isThere())) await waitForServer(error.message);
  else if (title) warn(title, title, "The connection broke off. Try it again.");
}

async function isThere() {
  try {
    await api.getJson("/health");
    return true;
  } catch {
    return false;
  }
}

async function waitForServer(message) {
  if (isWaitingForServer) return;
  isWaitingForServer = true;
  warn("server", "The server is gone", `${message} The page goes on when it is back.`);
  do await new Promise((resolve) => { setTimeout(resolve, RETRY_MS); }); while (!(await isThere()));
  isWaitingForServer = false;
  clearWarning("server");
  tell("The server is back");
  await start();
}

function askForKey(message) {
  byId("key-error").textContent = message;
  byId("key-button").hidden = false;
  byId("key-button").textContent = "Enter a key";
  if (!byId("key-dialog").open) byId("key-dialog").showModal();
  byId("key").focus();
}

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  api.setKey(byId("key").value.trim());
  byId("key").value = "";
  if (await start()) byId("key-dialog").close();
});

byId("key-button").addEventListener("click", () => {
  if (!api.hasKey()) return askForKey("");
  api.setKey(null);
  questions.forgetAll();
  location.assign(location.pathname);
});

const choose = () => byId("file").click();
byId("choose").addEventListener("click", choose);
byId("add").addEventListener("click", choose);
byId("file").addEventListener("change", () => {
  const files = [...byId("file").files];
  byId("file").value = "";
  videos.add(files);
});

let depth = 0;
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (!hasFiles(event)) return;
  depth += 1;
  byId("drop-here").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!hasFiles(event)) return;
  depth = Math.max(0, depth - 1);
  byId("drop-here").hidden = depth > 0 ? byId("drop-here").hidden : true;
});
addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  depth = 0;
  byId("drop-here").hidden = true;
  videos.add([...event.dataTransfer.files]);
});
addEventListener("hashchange", () => {
  const id = location.hash.slice(1);
  if (id !== videos.chosen && videos.find(id) !== null) videos.choose(id);
});

// Shows what the server has; says whether it let us in.
async function start() {
  try {
    const health = await api.getJson("/health");
    byId("model").textContent = health.model === "longtake" ? `version ${health.version}` : health.model;
    byId("notice").textContent = health.notice;
    byId("notice").hidden = !health.notice;
    await videos.refresh();
  } catch (error) {
    failed(error, "The videos could not be listed");
    return false;
  }
  if (api.hasKey()) {
    byId("key-button").hidden = false;
    byId("key-button").textContent = "Forget the key";
  }
  if (videos.find(videos.chosen) === null) {
    videos.choose((videos.find(location.hash.slice(1)) ?? videos.all()[0] ?? null)?.id ?? null);
  }
  return true;
}

start();
