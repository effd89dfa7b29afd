// Shell snippets, curl and command line, that do what the form would do.

const DEFAULT_PORT = "8000"; // the command line's default on 127.0.0.1
const signedIn = "signedIn" in document.documentElement.dataset;

/** Quotes a word for a POSIX shell. */
export function shellQuote(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${String(text).replaceAll("'", `'\\''`)}'`;
}

export function curl(method, path, body) {
  const lines = [`curl -X ${method} ${shellQuote(location.origin + path)}`];
  if (signedIn) lines.push('-H "Authorization: Bearer $LORAWORKS_API_KEY"');
  lines.push("-H 'Content-Type: application/json'", `-d ${shellQuote(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

/** Returns `loraworks train …`; with a file if some field has no option. */
export function commandLine(form, body) {
  const isDefault = location.port === DEFAULT_PORT && location.hostname === "127.0.0.1";
  const urlOption = isDefault ? "" : ` --url ${location.origin}`;
  const options = [];
  for (const [path, value] of Object.entries(flatten(body))) {
    const { flag, split } = form.querySelector(`[name="${CSS.escape(path)}"]`)?.dataset ?? {};
    if (!flag) return `loraworks train${urlOption} --spec job.json\n# job.json: ${JSON.stringify(body)}`;
    if (value === true) options.push(flag);
    else if (path !== "method.type" || value !== "auto") options.push(`${flag} ${shellQuote(split ? `${split}=${value}` : value)}`);
  }
  return [`loraworks train${urlOption}`, ...options].join(" \\\n  ");
}

function flatten(tree, prefix = "") {
  return Object.entries(tree).reduce((flattened, [name, value]) => {
    const isNested = value !== null && typeof value === "object" && !Array.isArray(value);
    return { ...flattened, ...(isNested ? flatten(value, `${prefix}${name}.`) : { [prefix + name]: Array.isArray(value) ? value.join(",") : value === true ? value : String(value) }) };
  }, {});
}
