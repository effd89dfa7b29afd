// Makes one element like another and touches only what differs, so that focus, selections, typed
// text, ticked boxes and opened details stay. `data-keep` marks what a script has drawn.

/** Make `old` like `fresh`. Children with an id are found again wherever they have moved. */
export function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.data = fresh.data;
    return;
  }
  takeAttributes(old, fresh);
  if (!("keep" in old.dataset)) takeChildren(old, fresh);
}

function takeAttributes(old, fresh) {
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const name of old.getAttributeNames()) {
    const opened = name === "open" && old.localName === "details"; // by the person
    if (!fresh.hasAttribute(name) && !opened) old.removeAttribute(name);
  }
}

function takeChildren(old, fresh) {
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const found = match(old, place, wanted);
    if (!found) {
      old.insertBefore(document.importNode(wanted, true), place);
      continue;
    }
    if (found === place) place = place.nextSibling;
    else old.insertBefore(found, place);
    morph(found, wanted);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function match(old, place, wanted) {
  if (wanted.id) return [...old.children].find((child) => child.id === wanted.id && child.localName === wanted.localName);
  return place?.nodeName === wanted.nodeName && !place.id ? place : null;
}
