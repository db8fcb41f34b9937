// Talks to the server: JSON, uploads with progress, answers as server-sent events. Errors carry the server's words.

const KEY = "longtake.key";

export class ServerError extends Error {
  constructor(status, message, retryAfterS = null) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

export class NoServer extends Error {
  constructor() { super("The server does not answer. It may have been stopped, or the connection is down."); }
}

let key = read();

function read() {
  try { return sessionStorage.getItem(KEY); } catch { return null; }
}

export const hasKey = () => key !== null;

export function setKey(value) {
  key = value;
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch { /* the browser keeps nothing: the key lives as long as the page */ }
}

const headers = () => (key === null ? {} : { Authorization: `Bearer ${key}` });

function told(status, text, retryAfter) {
  let message = `The server answered with status ${status}.`;
  try { message = JSON.parse(text).error.message; } catch { /* a proxy's page, not ours */ }
  return new ServerError(status, message, retryAfter === null ? null : Number(retryAfter));
}

async function send(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, { ...options, headers: { ...headers(), ...options.headers }, credentials: "omit" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new NoServer();
  }
  if (!reply.ok) throw told(reply.status, await reply.text(), reply.headers.get("Retry-After"));
  return reply;
}

export const getJson = async (path) => (await send(path)).json();
export const remove = async (path) => (await send(path, { method: "DELETE" })).json();

// Sends a file; `onShare(sent, total)` is told how far it is. Returns a promise and a function that gives up.
export function upload(file, onShare) {
  const request = new XMLHttpRequest();
  const promise = new Promise((resolve, reject) => {
    request.open("POST", "/v1/videos");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onShare(event.loaded, event.total);
    request.onload = () => {
      if (request.status === 202) resolve(JSON.parse(request.responseText));
      else reject(told(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(new NoServer());
    request.onabort = () => reject(new DOMException("given up", "AbortError"));
    const form = new FormData();
    form.append("file", file, file.name);
    request.send(form);
  });
  return { promise, abort: () => request.abort() };
}

// Yields [event, value] of an answer while it is written.
export async function* ask(videoId, body, signal) {
  const reply = await send(`/v1/videos/${videoId}/ask`, {
    method: "POST", signal, body: JSON.stringify({ ...body, stream: true }),
    headers: { "Content-Type": "application/json" },
  });
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  while (true) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : new NoServer();
    }
    if (part.done) return;
    held += part.value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) yield parsed(event);
  }
}

function parsed(event) {
  const lines = event.split("\n");
  const of = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
  return [of("event")[0], JSON.parse(of("data").join("\n"))];
}
