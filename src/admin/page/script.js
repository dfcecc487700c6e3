// Puts rows that have changed in place, and shows times as ages. Without this script the
// page shows the same, as of when it was loaded.
"use strict";

(() => {
  const SECOND = 1000;
  // Rows that changed are announced at most this often.
  const NEWS_EVERY = 5 * SECOND;
  // Wait before the next try where the server has refused a live page.
  const RETRY_AFTER = 10 * SECOND;

  const source = document.body.dataset.events;
  const live = document.getElementById("live");
  const pause = document.getElementById("pause");
  const newsLine = document.getElementById("news");
  // The clocks of the server and of this machine may differ.
  const clockDifference = Date.now() - Date.parse(document.body.dataset.now);

  let events = null;
  let retry = 0;
  let paused = false;
  let isFirst = true;
  let news = [];
  let newsTimer = 0;

  function age(seconds) {
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
    return `${Math.floor(seconds / 86400)} d`;
  }

  function showAges() {
    const now = Date.now() - clockDifference;
    for (const time of document.querySelectorAll("time:not(.exact > time)")) {
      const seconds = Math.round((now - Date.parse(time.dateTime)) / SECOND);
      const isDue = time.parentElement.classList.contains("due");
      const past = isDue ? (seconds > 2 ? `${age(seconds)} overdue` : "now") : `${age(seconds)} ago`;
      const text = seconds > 0 ? past : seconds < 0 ? `in ${age(-seconds)}` : "now";
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // Makes `old` equal to `fresh`, and keeps the elements, so that the focus stays.
  function morph(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType === Node.TEXT_NODE) {
      old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const children = [...fresh.childNodes];
    children.forEach((child, number) => {
      const present = old.childNodes[number];
      if (!present) old.append(child);
      else if (present.nodeName !== child.nodeName) present.replaceWith(child);
      else morph(present, child);
    });
    while (old.childNodes.length > children.length) old.lastChild.remove();
  }

  function announce(text) {
    news.push(text);
    if (newsTimer) return;
    newsTimer = setTimeout(() => {
      newsTimer = 0;
      const more = news.length > 3 ? `, and ${news.length - 3} more` : "";
      newsLine.textContent = news.slice(0, 3).join(". ") + more;
      news = [];
    }, NEWS_EVERY);
  }

  function update({ table, order, rows }) {
    const body = document.getElementById(table);
    if (!body) return;
    const html = `<table><tbody>${rows}</tbody></table>`;
    const parsed = new DOMParser().parseFromString(html, "text/html");
    const changed = new Map([...parsed.querySelectorAll("tr")].map((row) => [row.id, row]));
    const present = new Map([...body.children].map((row) => [row.id, row]));
    order.forEach((id, place) => {
      const fresh = changed.get(id);
      let row = present.get(id);
      present.delete(id);
      const text = fresh?.dataset.news;
      if (text && !isFirst && text !== row?.dataset.news) announce(text);
      if (row && fresh) morph(row, fresh);
      row = row ?? fresh;
      if (row && body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
    });
    for (const row of present.values()) row.remove();
  }

  function say(text) {
    if (live.textContent !== text) live.textContent = text;
  }

  function disconnect() {
    clearTimeout(retry);
    if (events) events.close();
    events = null;
  }

  function connect() {
    disconnect();
    if (paused || document.hidden) return;
    isFirst = true;
    events = new EventSource(source);
    events.onmessage = ({ data }) => {
      JSON.parse(data).forEach(update);
      isFirst = false;
      showAges();
      say("Live");
    };
    events.onerror = () => {
      if (events.readyState === EventSource.CLOSED) {
        say("No live updates; next try in 10 s");
        retry = setTimeout(connect, RETRY_AFTER);
      } else {
        say("Connection lost; trying again");
      }
    };
  }

  showAges();
  setInterval(showAges, SECOND);
  if (!source) return;
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume updates" : "Pause updates";
    connect();
    say(paused ? "Paused" : "");
  });
  // A browser has few connections for one server, and a hidden page needs none.
  document.addEventListener("visibilitychange", connect);
  window.addEventListener("pagehide", disconnect);
  window.addEventListener("pageshow", (event) => event.persisted && connect());
  connect();
})();
