// API calls, authenticated as the signed-in user.

export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail ?? body.error ?? `The service returned status ${status}.`);
    this.status = status;
    this.code = body.code;
    this.errors = body.errors ?? []; // [{at, code, message}]
    this.retryAfter = Number(retryAfter); // seconds; 0 if the response has no Retry-After
  }

  /** What is wrong with the fields, or else the message. */
  get fieldMessages() {
    return this.errors.map((each) => each.message).join(" ") || this.message;
  }
}

/**
 * Returns the CSRF token that signed_in.js stored, maybe since this page was loaded, in another tab.
 * Other ports of this host cannot read it.
 */
export function readToken() {
  try {
    return localStorage.getItem("page-token");
  } catch {
    return null; // storage is disabled
  }
}

/** Returns the Response; throws a Problem. `body` is an object to send as JSON, or FormData. */
export async function request(method, path, body, options = {}) {
  const headers = new Headers(options.headers);
  const token = readToken();
  if (token) headers.set("X-Page-Token", token); // the session cookie alone is read-only
  if (body !== undefined && !(body instanceof FormData)) {
    headers.set("Content-Type", "application/json");
    body = JSON.stringify(body);
  }
  const response = await fetch(path, { ...options, method, headers, body }).catch(throwProblem);
  if (response.ok) return response;
  throw new Problem(response.status, await response.json().catch(() => ({})), response.headers.get("Retry-After"));
}

/** Returns the response body parsed as JSON, or null for 204 No Content. */
export async function call(method, path, body, options) {
  const response = await request(method, path, body, options);
  return response.status === 204 ? null : response.json().catch(throwProblem);
}

/** Throws a Problem if the connection failed, else the error itself: a request that was aborted or timed out. */
export function throwProblem(error) {
  if (error.name !== "TypeError") throw error;
  throw new Problem(0, { code: "no_connection", detail: "Could not reach the service. Is it running?" });
}
