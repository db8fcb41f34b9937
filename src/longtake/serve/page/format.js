// Seconds, bytes and shares as people write them.

export function clock(seconds, isFine = false) {
  const steps = isFine ? Math.round(seconds * 10) / 10 : Math.floor(seconds + 1e-6);
  const hours = Math.floor(steps / 3600);
  const minutes = Math.floor((steps % 3600) / 60);
  const rest = isFine ? (steps % 60).toFixed(1) : String(Math.floor(steps % 60));
  const padded = rest.padStart(isFine ? 4 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${padded}` : `${minutes}:${padded}`;
}

const isWhole = (seconds) => Math.abs(seconds - Math.round(seconds)) < 0.05;

export function span(start, end) {
  const isFine = end - start < 10 && !(isWhole(start) && isWhole(end));
  const [first, last] = isFine ? [start, end] : [Math.round(start), Math.round(end)];
  return `${clock(first, isFine)} – ${clock(last, isFine)}`;
}

export const percent = (share) => `${Math.round(share * 100)} %`;

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let place = 0;
  while (count >= 1000 && place < units.length - 1) { count /= 1000; place += 1; }
  return `${count >= 10 || place === 0 ? Math.round(count) : count.toFixed(1)} ${units[place]}`;
}

export const many = (count, one, several = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : several}`;
