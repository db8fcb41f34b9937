// What was asked of each video, kept in this browser. Videos' names belong to one server and key.

const PREFIX = "longtake.questions.";
const MOST = 50;

export function load(videoId) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + videoId)) ?? [];
  } catch {
    return [];
  }
}

// Keeps the newest; older ones go where the browser gives no more room.
export function save(videoId, entries) {
  let kept = entries.filter((entry) => entry.state === "done").slice(0, MOST);
  while (true) {
    try {
      if (kept.length) localStorage.setItem(PREFIX + videoId, JSON.stringify(kept));
      else localStorage.removeItem(PREFIX + videoId);
      return;
    } catch {
      if (!kept.length) return; // the browser keeps nothing
      kept = kept.slice(0, Math.floor(kept.length / 2));
    }
  }
}

export function forgetAll() {
  try {
    for (const name of Object.keys(localStorage)) {
      if (name.startsWith(PREFIX)) localStorage.removeItem(name);
    }
  } catch { /* the browser keeps nothing */ }
}

const rounded = (value, digits) => Number(value.toFixed(digits));

// A timeline as columns of short numbers: an hour of video takes kilobytes.
export function packed(timeline) {
  return {
    start: timeline.map((clip) => rounded(clip.start_s, 2)),
    end: timeline.map((clip) => rounded(clip.end_s, 2)),
    heat: timeline.map((clip) => rounded(clip.heat, 3)),
    tokens: timeline.map((clip) => rounded(clip.tokens, 1)),
  };
}
