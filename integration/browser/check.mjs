// Opens the status page in a real browser and prints what is wrong with it, a line each; nothing if all is well.
//
// usage: node check.mjs URL BROWSER [SCREENSHOT]
//
// Behind a line "opened" on standard output it expects the daemon to go away.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [url, executablePath, screenshot] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const wrong = [];
let leaving = false; // the daemon has been told to go: requests fail now
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"] });

async function open(name, options) {
	const context = await browser.newContext(options);
	const page = await context.newPage();
	page.on("request", (r) => {
		if (!r.url().startsWith(url)) wrong.push(`${name}: it loads ${r.url()}`);
	});
	page.on("console", (m) => {
		if (m.type() === "error" && !leaving) wrong.push(`${name}: ${m.text()}`);
	});
	page.on("pageerror", (e) => wrong.push(`${name}: ${e}`));
	await page.goto(url);
	await page.waitForSelector("main h1");
	return page;
}

async function judge(name, page) {
	await page.evaluate(axe); // by the debugger's way, which no policy of the page forbids
	const result = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }));
	if (result.passes.length < 10) wrong.push(`${name}: axe has checked ${result.passes.length} rules only`);
	for (const v of result.violations) wrong.push(`${name}: axe: ${v.id}: ${v.help}: ${v.nodes.map((n) => n.html).join(" ").slice(0, 300)}`);
	const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, globalThis.innerWidth]);
	if (wide > seen) wrong.push(`${name}: the page is ${wide} wide, the window ${seen}`);
}

const desk = await open("desk, light", { viewport: { width: 1200, height: 900 }, colorScheme: "light" });
await judge("desk, light", desk);
if (screenshot) await desk.screenshot({ path: screenshot });
const text = await desk.innerText("main");
for (const want of [/no connection to broker, trying again; error: .*refused/, /dead letter; message id: .*; reason: unroutable/, /detached, disconnected/]) {
	if (!want.test(text)) wrong.push(`it does not say ${want}`);
}
const phone = await open("phone, dark", { viewport: { width: 360, height: 740 }, colorScheme: "dark" });
await judge("phone, dark", phone);

// Whoever has a keyboard only comes to everything.
const reached = new Set();
for (let i = 0; i < 12; i++) {
	await phone.keyboard.press("Tab");
	reached.add(await phone.evaluate(() => document.activeElement.className || document.activeElement.textContent));
}
for (const want of ["scroll", "/metrics", "/healthz", "/readyz"]) {
	if (!reached.has(want)) wrong.push(`keyboard: Tab does not come to ${want}: ${[...reached]}`);
}

// It is kept up to date, and the focus stays.
await phone.focus(".scroll");
const before = await desk.innerText("main");
for (let i = 0; (await desk.innerText("main")) === before; i++) {
	if (i > 100) {
		wrong.push("it does not change");
		break;
	}
	await desk.waitForTimeout(100);
}
if (!(await phone.evaluate(() => document.activeElement.classList.contains("scroll")))) wrong.push("an update takes the focus away");

const plain = await open("without scripts", { javaScriptEnabled: false });
if ((await plain.locator("table").count()) === 0) wrong.push("without scripts there is no table of brokers");
await plain.close();

leaving = true;
console.log("opened");
await desk.waitForFunction(() => document.getElementById("stale").textContent.includes("does not answer"), undefined, { timeout: 60000 })
	.catch(() => wrong.push("it does not say that the daemon is away"));
await browser.close();
for (const w of wrong) console.log(w);
