// A page of this service as a document, to take parts of it over.
const parser = new DOMParser();

/** {page, answer}. Throws what fetch throws. */
export async function read(address, options) {
  const answer = await fetch(address, { ...options, headers: { Accept: "text/html" } });
  return { page: parser.parseFromString(await answer.text(), "text/html"), answer };
}
