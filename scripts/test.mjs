// Lint and all tests of dist/test: quick ones two files at a time, then those that run real QEMUs or measure time one after another.
//
//   node scripts/test.mjs [PART...]     only files whose path contains one of the parts, without lint
//
// Runs in a process group of its own, so that at the end - also by deadline or Ctrl-C - no process of a test can be left; one that is
// left is a failure.
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { run } from 'node:test';
import { fileURLToPath } from 'node:url';

/** Far above what it takes (below 15 minutes on two cores): it ends a run that hangs, not one that is slow. */
const DEADLINE_MS = 40 * 60_000;
const FILE_TIMEOUT_MS = 30 * 60_000;
/** Folders of test/ whose files are run alone. */
const ALONE = ['compatibility', 'conformance', 'faults', 'interop', 'scenario'];

process.chdir(dirname(dirname(fileURLToPath(import.meta.url))));
const inner = process.argv[2] === '--inner';
process.exitCode = inner ? await runTests(process.argv.slice(3)) : await watch(process.argv.slice(2));

async function watch(parts) {
  const self = fileURLToPath(import.meta.url);
  const env = { ...process.env, NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --enable-source-maps` };
  const child = spawn(process.execPath, [self, '--inner', ...parts], { detached: true, stdio: 'inherit', env });
  const exited = new Promise((resolve) => child.once('exit', (code) => resolve(code ?? 1)));
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => killGroup(child.pid, signal));
  const timer = setTimeout(() => {
    console.error(`test: not done after ${DEADLINE_MS / 60_000} minutes`);
    killGroup(child.pid, 'SIGKILL');
  }, DEADLINE_MS);
  const code = await exited;
  clearTimeout(timer);
  if (!killGroup(child.pid, 'SIGKILL')) return code;
  console.error('test: a test left processes behind (killed now)');
  return 1;
}

/** True if there was a process to get the signal. */
function killGroup(pid, signal) {
  try {
    process.kill(-pid, signal);
    return true;
  } catch {
    return false;
  }
}

async function runTests(parts) {
  const startedMs = Date.now();
  const files = readdirSync('dist/test', { recursive: true })
    .filter((name) => name.endsWith('.test.js') && (parts.length === 0 || parts.some((part) => name.includes(part))))
    .map((name) => join('dist/test', name))
    .sort();
  const alone = (file) => ALONE.some((folder) => file.startsWith(join('dist/test', folder) + '/'));
  const lint =
    parts.length === 0 ? spawnSync('node_modules/.bin/biome', ['check', '.'], { stdio: 'inherit' }).status : 0;
  const total = { passed: 0, failed: 0, skipped: new Map() };
  await runFiles(
    files.filter((file) => !alone(file)),
    2,
    total,
  );
  await runFiles(files.filter(alone), 1, total);
  const skipped = [...total.skipped.values()].reduce((sum, count) => sum + count, 0);
  for (const [reason, count] of total.skipped) console.log(`test: ${count} skipped: ${reason}`);
  const seconds = ((Date.now() - startedMs) / 1000).toFixed(0);
  const counts = `${total.passed} passed, ${total.failed} failed, ${skipped} skipped`;
  const ok = lint === 0 && total.failed === 0 && total.passed > 0;
  console.log(
    `test: ${ok ? 'ok' : 'FAILED'}: ${files.length} files, lint ${lint === 0 ? 'ok' : 'FAILED'}, ${seconds} s`,
  );
  console.log(`test: ${counts}`);
  return ok ? 0 : 1;
}

async function runFiles(files, concurrency, total) {
  if (files.length === 0) return;
  let current = { file: '', passed: 0 };
  const finish = () => current.passed > 0 && console.log(`ok ${current.file} (${current.passed})`);
  for await (const { type, data } of run({ files, concurrency, timeout: FILE_TIMEOUT_MS })) {
    if (type === 'test:stderr') process.stderr.write(data.message);
    if ((type !== 'test:pass' && type !== 'test:fail') || data.details.type === 'suite') continue;
    const file = relative('.', data.file ?? data.name).replace(/^dist\//, '');
    if (file !== current.file) {
      finish();
      current = { file, passed: 0 };
    }
    if (data.skip !== undefined) {
      total.skipped.set(data.skip, (total.skipped.get(data.skip) ?? 0) + 1);
    } else if (type === 'test:pass') {
      total.passed++;
      current.passed++;
    } else if (data.details.error?.failureType !== 'subtestsFailed') {
      total.failed++;
      const error = data.details.error?.cause ?? data.details.error;
      console.log(`not ok ${file} ${data.name}`);
      console.log(`  ${String(error?.stack ?? error).replaceAll('\n', '\n  ')}`);
    }
  }
  finish();
}
