// Calls of the API, as the person who is signed in.

export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail ?? body.error ?? `The service answered ${status}.`);
    this.status = status;
    this.code = body.code;
    this.errors = body.errors ?? []; // [{at, code, message}]
    this.retryAfter = Number(retryAfter); // seconds; 0: it does not say
  }
}

export const token = readToken();

/** What the answer to the sign-in left here (signed_in.js); other ports of this host cannot read it. */
function readToken() {
  try {
    return localStorage.getItem("page-token");
  } catch {
    return null; // the browser keeps nothing
  }
}

/** The Response. Throws a Problem. `body` is JSON, or what fetch takes by itself (a form, a file). */
export async function request(method, path, body, options = {}) {
  const headers = new Headers(options.headers);
  if (token) headers.set("X-Page-Token", token); // the cookie alone is good for reading
  if (body !== undefined && !(body instanceof FormData)) {
    headers.set("Content-Type", "application/json");
    body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, { ...options, method, headers, body });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { code: "no_connection", detail: "The service does not answer. Is it running?" });
  }
  if (answer.ok) return answer;
  throw new Problem(answer.status, await answer.json().catch(() => ({})), answer.headers.get("Retry-After"));
}

/** What was answered, read as JSON; null where there is nothing to read. */
export async function call(method, path, body, options) {
  const answer = await request(method, path, body, options);
  return answer.status === 204 ? null : answer.json();
}
