// Opens the status page in a real browser and prints what is wrong with it, a line each; nothing if all is well.
//
// usage: node check.mjs URL BROWSER [SCREENSHOT]
//
// It expects a daemon that is not ready. Behind a line "mend" on standard output it expects it to become so, behind "opened" to
// go away.
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

// Each of the four in which people see it, while it shows a problem.
const pages = {};
for (const [device, viewport] of [["desk", { width: 1200, height: 900 }], ["phone", { width: 360, height: 740 }]]) {
	for (const colorScheme of ["light", "dark"]) {
		const name = `${device}, ${colorScheme}`;
		const page = await open(name, { viewport, colorScheme });
		if ((await page.locator("main .problem").count()) !== 1) wrong.push(`${name}: it shows no problem`);
		await judge(name, page);
		pages[name] = page;
	}
}
const desk = pages["desk, light"];
const phone = pages["phone, dark"];
if (screenshot) await desk.screenshot({ path: screenshot });
const text = await desk.innerText("main");
for (const want of [/no connection to broker, trying again; error: .*refused/, /dead letter; message id: .*; reason: unroutable/, /detached, disconnected/]) {
	if (!want.test(text)) wrong.push(`it does not say ${want}`);
}

// Whoever has a keyboard only comes to everything.
const reached = new Set();
for (let i = 0; i < 12; i++) {
	await phone.keyboard.press("Tab");
	reached.add(await phone.evaluate(() => document.activeElement.className || document.activeElement.textContent));
}
for (const want of ["Pause updates", "scroll", "/metrics", "/healthz", "/readyz"]) {
	if (!reached.has(want)) wrong.push(`keyboard: Tab does not come to ${want}: ${[...reached]}`);
}

// changes waits until the text of a page has changed so often.
async function changes(page, times) {
	for (let n = 0; n < times; n++) {
		const before = await page.innerText("main");
		for (let i = 0; (await page.innerText("main")) === before; i++) {
			if (i > 100) {
				wrong.push("it does not change");
				return;
			}
			await page.waitForTimeout(100);
		}
	}
}

// What a reader of screens would read out from now on.
await desk.evaluate(() => {
	globalThis.said = [];
	const live = "[role=alert], [role=status], [role=log], [aria-live]";
	new MutationObserver((all) => {
		for (const m of all) {
			const at = m.target.nodeType === Node.ELEMENT_NODE ? m.target : m.target.parentElement;
			const inserted = [...m.addedNodes].some((n) => n.nodeType === Node.ELEMENT_NODE && (n.matches(live) || n.querySelector(live) !== null));
			if (inserted || at?.closest(live)) globalThis.said.push(at.textContent.slice(0, 100));
		}
	}).observe(document.body, { subtree: true, childList: true, characterData: true });
});

// It is kept up to date without a word, and the focus stays.
await phone.focus(".scroll");
await changes(desk, 3);
await changes(phone, 1);
if (!(await phone.evaluate(() => document.activeElement.classList.contains("scroll")))) wrong.push("an update takes the focus away");
let said = await desk.evaluate(() => globalThis.said);
if (said.length > 0) wrong.push(`an update without news is read out: ${said}`);

// By keyboard it can be paused, and goes on.
await phone.focus("#pause");
await phone.keyboard.press("Enter");
const paused = await phone.innerText("main");
await changes(desk, 3);
if ((await phone.innerText("main")) !== paused) wrong.push("it changes while it is paused");
if ((await phone.innerText("#pause")) !== "Resume updates") wrong.push("the button does not say that it is paused");
await phone.keyboard.press("Enter");
await changes(phone, 1);

const plain = await open("without scripts", { javaScriptEnabled: false });
if ((await plain.locator("table").count()) === 0) wrong.push("without scripts there is no table of brokers");
if (await plain.locator("#pause").isVisible()) wrong.push("without scripts there is a button that does nothing");
await plain.close();

// A change of the state is read out, once.
console.log("mend");
await desk.waitForFunction(() => document.querySelector("main .state").textContent === "ready", undefined, { timeout: 60000 })
	.catch(() => wrong.push("it does not become ready"));
said = await desk.evaluate(() => globalThis.said);
if (said.join() !== "pgamqp is ready") wrong.push(`what is read out of the change: ${JSON.stringify(said)}`);

leaving = true;
console.log("opened");
await desk.waitForFunction(() => document.getElementById("stale").textContent.includes("does not answer"), undefined, { timeout: 60000 })
	.catch(() => wrong.push("it does not say that the daemon is away"));
await browser.close();
for (const w of wrong) console.log(w);
