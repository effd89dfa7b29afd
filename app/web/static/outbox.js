// Requests that wait to be sent, in order. Each is kept in localStorage until the service has answered
// it, so that closing the page or losing the service loses nothing. Every request is an entry of its
// own: tabs with the same prefix do not overwrite what the others wait for.

const SEND_TIMEOUT = 20_000; // ms

export class Outbox {
  /** `send(request, signal)` resolves when the service has stored the request. */
  constructor(prefix, send) {
    this.prefix = prefix;
    this.send = send;
    this.waiting = new Map(); // key → request, in order
    const left = storedKeys(prefix);
    this.left = new Set(left); // by an earlier page, or by a tab that is still open
    this.stored = left !== null; // whether all of them are in localStorage
    this.last = 0; // number of the newest request, milliseconds or more
    for (const key of this.left) {
      const request = readJson(key);
      if (request !== null) this.waiting.set(key, request);
    }
  }

  get size() {
    return this.waiting.size;
  }

  /** The requests, the oldest first. */
  get requests() {
    return [...this.waiting.values()];
  }

  add(request) {
    this.last = Math.max(this.last + 1, Date.now());
    const key = `${this.prefix}${String(this.last).padStart(15, "0")}-${Math.random().toString(36).slice(2, 8)}`;
    this.waiting.set(key, request);
    try {
      localStorage.setItem(key, JSON.stringify(request));
    } catch {
      this.stored = false; // full or disabled: kept by this page only
    }
  }

  /** Sends all requests, one after the other. Throws the first problem; that request stays first. */
  async flush() {
    for (let [entry] = this.waiting; entry; [entry] = this.waiting) {
      const [key, request] = entry;
      if (this.left.has(key) && localStorage.getItem(key) === null) this.waiting.delete(key); // that tab has sent it
      else {
        await this.send(request, AbortSignal.timeout(SEND_TIMEOUT));
        this.remove(key);
      }
    }
    this.stored = true;
  }

  /** Gives up the first request. */
  discardFirst() {
    const [key] = this.waiting.keys();
    if (key !== undefined) this.remove(key);
  }

  remove(key) {
    this.waiting.delete(key);
    try {
      localStorage.removeItem(key);
    } catch {
      // disabled: there is nothing to remove
    }
  }
}

function storedKeys(prefix) {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(prefix)).sort();
  } catch {
    return null; // storage is disabled
  }
}

function readJson(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}
