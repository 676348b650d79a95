"use strict";

const STATE_EVERY_MS = 3000;
const KEY = "vsc-engine-key";
const byId = (id) => document.getElementById(id);
const inTable = byId("matches").tBodies[0];

// Names of files and ids are only ever put into the page as text.
function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function clock(seconds) {
  const tenths = Math.max(0, Math.round(seconds * 10));
  const minutes = Math.floor(tenths / 600);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  const hours = Math.floor(minutes / 60);
  return hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

function count(number, one, many) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

async function showState() {
  try {
    const response = await fetch("v1/status", { headers: headers() });
    byId("keys").hidden = response.status !== 401;
    if (!response.ok) {
      byId("state").textContent = (await response.json()).error;
      return;
    }
    const now = await response.json();
    const busy = now.running + now.waiting ? `${now.running} being compared, ${now.waiting} waiting` : "idle";
    byId("state").textContent = `${count(now.num_videos, "video", "videos")} in the catalogue, ${busy}`;
    const thresholds = now.thresholds;
    const facts = {
      Videos: now.num_videos.toLocaleString("en"),
      Rows: `${now.num_rows.toLocaleString("en")} (${(now.duration_s / 3600).toFixed(1)} hours)`,
      "A copy begins at score": thresholds ? thresholds.act.toFixed(3) : "not calibrated",
      "A case for review at": thresholds ? thresholds.review.toFixed(3) : "not calibrated",
      Workers: now.workers,
      "Compared now": now.running,
      Waiting: `${now.waiting} of ${now.queue}`,
      "Largest upload": `${(now.max_upload_bytes / 1e6).toLocaleString("en")} MB`,
      "Time limit": `${now.timeout_s} s`,
      Engines: `${now.preset}, ${now.engines}`,
      Running: `${(now.uptime_s / 3600).toFixed(1)} hours`,
      Version: now.version,
    };
    byId("facts").replaceChildren(
      ...Object.entries(facts).map(([name, value]) => {
        const pair = document.createElement("div");
        pair.append(element("dt", name), element("dd", String(value)));
        return pair;
      }),
    );
  } catch {
    byId("state").textContent = "The service does not answer.";
  }
}

function fail(text) {
  byId("doing").textContent = "";
  byId("progress").hidden = true;
  byId("error").textContent = text;
  byId("error").hidden = false;
}

function compare(file) {
  byId("error").hidden = byId("answer").hidden = true;
  byId("progress").hidden = false;
  byId("progress").value = 0;
  byId("doing").textContent = `Sending ${file.name}…`;
  byId("file").disabled = true;
  const request = new XMLHttpRequest();
  request.open("POST", `v1/match?report=true&all=${byId("all").checked}`);
  for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
  request.upload.onprogress = (event) => {
    byId("progress").value = event.lengthComputable ? event.loaded / event.total : 0;
  };
  request.upload.onload = () => {
    byId("doing").textContent = `Comparing ${file.name}…`;
  };
  request.onerror = () => fail("The connection was lost; is the file too large, or the service gone?");
  request.onload = () => {
    let answer;
    try {
      answer = JSON.parse(request.responseText);
    } catch {
      fail(`The service answered with status ${request.status}.`);
      return;
    }
    if (request.status === 200) showAnswer(answer);
    else fail(answer.error);
  };
  request.onloadend = () => {
    byId("file").disabled = false;
    showState();
  };
  const form = new FormData();
  form.append("file", file);
  request.send(form);
}

function showAnswer(answer) {
  byId("doing").textContent = "";
  byId("progress").hidden = true;
  const verdict = answer.verdict ?? "no verdict";
  byId("verdict").textContent = verdict;
  byId("verdict").className = `tag ${verdict === "no match" ? "none" : verdict.replaceAll(" ", "-")}`;
  byId("name").textContent = answer.path;
  byId("summary").textContent =
    `${count(answer.matches.length, "match", "matches")} with ` +
    `${count(new Set(answer.matches.map((match) => match.ref_id)).size, "video", "videos")}, ` +
    `in ${answer.seconds.toFixed(1)} s`;
  const same = answer.duplicates.map((found) => `The same bytes as ${found.ref_id} (${found.path})`);
  byId("notes").replaceChildren(...[...same, ...answer.warnings].map((text) => element("li", text)));
  inTable.replaceChildren(
    ...answer.matches.map((match) => {
      const row = document.createElement("tr");
      const how = [
        match.verdict ?? "",
        match.mirrored ? "mirrored" : "",
        match.speed === null || match.speed === 1 ? "" : `speed ${match.speed.toFixed(2)}`,
      ];
      const cells = [
        `${clock(match.query_start_s)} to ${clock(match.query_end_s)}`,
        match.ref_id,
        `${clock(match.ref_start_s)} to ${clock(match.ref_end_s)}`,
        match.score.toFixed(3),
        how.filter(Boolean).join(", "),
      ];
      row.append(...cells.map((text) => element("td", text)));
      return row;
    }),
  );
  const hasMatches = answer.matches.length > 0;
  byId("matches").hidden = byId("pictures").hidden = byId("frame").hidden = !hasMatches;
  if (hasMatches) byId("report").href = byId("frame").src = answer.report.slice(1);
  byId("answer").hidden = false;
  byId("answer").focus();
}

byId("file").addEventListener("change", (event) => {
  if (event.target.files.length) compare(event.target.files[0]);
  event.target.value = "";
});
byId("keys").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("key").value);
  byId("key").value = "";
  showState();
});
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragover");
    const dropped = event.dataTransfer.files;
    if (name === "drop" && dropped.length && !byId("file").disabled) compare(dropped[0]);
  });
}
document.addEventListener("dragleave", () => byId("drop").classList.remove("over"));
showState();
setInterval(() => document.hidden || showState(), STATE_EVERY_MS);
