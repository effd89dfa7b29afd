// What a form would send, as calls that can be copied into a shell.

const PORT = "8000"; // where the command line looks by itself
const signedIn = "signedIn" in document.documentElement.dataset;

/** A word of a POSIX shell. */
export function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${String(text).replaceAll("'", `'\\''`)}'`;
}

export function curl(method, path, body) {
  const lines = [`curl -X ${method} ${quoted(location.origin + path)}`];
  if (signedIn) lines.push('-H "Authorization: Bearer $LORAWORKS_API_KEY"');
  lines.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

/** `loraworks train …`, from the option of each field; a file for what no option says. */
export function commandLine(form, body) {
  const here = location.port === PORT && location.hostname === "127.0.0.1" ? "" : ` --url ${location.origin}`;
  const said = flat(body);
  const options = [];
  for (const [place, value] of Object.entries(said)) {
    const { flag, part } = form.querySelector(`[name="${CSS.escape(place)}"]`)?.dataset ?? {};
    if (!flag) return `loraworks train${here} --spec job.json\n# job.json: ${JSON.stringify(body)}`;
    if (place !== "method.type" || value !== "auto") options.push(`${flag} ${quoted(part ? `${part}=${value}` : value)}`);
  }
  return [`loraworks train${here}`, ...options].join(" \\\n  ");
}

function flat(part, before = "") {
  return Object.entries(part).reduce((found, [name, value]) => {
    const inside = value !== null && typeof value === "object" && !Array.isArray(value);
    return { ...found, ...(inside ? flat(value, `${before}${name}.`) : { [before + name]: Array.isArray(value) ? value.join(",") : String(value) }) };
  }, {});
}
