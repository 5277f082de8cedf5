// What the scripts that capture streams of real QEMUs share: the guest, a QEMU spoken to over QMP, provenance.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

export const VERSIONS = ['7.2', '10.0', '11.1'];
export const UUID = '5c7e0f1a-8d2b-4c3e-9f60-718293a4b5c6';
const DEADLINE_MS = 60_000;

/**
 * Firmware of all guests, instead of real ones that would only add bulk: from the reset vector straight into a loop in real mode that
 * increments one word in each page from 128 KiB to 512 KiB, again and again, with a delay after each (a few ms under TCG).
 */
export const FIRMWARE = Buffer.alloc(64 * 1024);
Buffer.from('b800208ed8ff060000ba140031c9e2fe4a75f90500013d008072e8ebe3', 'hex').copy(FIRMWARE);
Buffer.from('ea000000f0', 'hex').copy(FIRMWARE, 0xfff0);

/** Name of the variable with the qemu-system-x86_64 of a version, and its value. */
export function binaryOf(version) {
  const variable = `VMFERRY_QEMU_${version.replace('.', '_')}`;
  return { variable, binary: process.env[variable] };
}

export class Vm {
  constructor(version, binary, args, folder) {
    this.version = version;
    this.binary = binary;
    this.args = args;
    this.folder = folder;
    this.replies = [];
    this.errors = '';
    this.process = spawn(binary, [...args, '-qmp', 'stdio'], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.exited = new Promise((resolve) => this.process.once('exit', resolve));
    this.process.stdin.on('error', () => {});
    this.process.stderr.on('data', (data) => {
      this.errors += data;
    });
    createInterface(this.process.stdout).on('line', (line) => {
      const message = JSON.parse(line);
      if ('return' in message || 'error' in message) this.replies.shift()?.(message);
    });
  }

  async qmp(execute, args = {}) {
    const reply = await within(
      `${execute} in ${this.args.join(' ')}: ${this.errors}`,
      Promise.race([
        new Promise((resolve) => {
          this.replies.push(resolve);
          this.process.stdin.write(JSON.stringify({ execute, arguments: args }) + '\n');
        }),
        this.exited.then(() => ({ error: { desc: `QEMU is gone: ${this.errors}` } })),
      ]),
    );
    if (reply.error) throw new Error(`${execute}: ${reply.error.desc}`);
    return reply.return;
  }

  async setUp(capabilities) {
    await this.qmp('qmp_capabilities');
    const list = capabilities.map((capability) => ({ capability, state: true }));
    await this.qmp('migrate-set-capabilities', { capabilities: list });
  }

  /** Polls query-migrate until `done` says so: QMP has no call that waits. `wanted`: what that is, for messages. */
  async until(done, wanted) {
    for (const untilMs = Date.now() + DEADLINE_MS; ; ) {
      const info = await this.qmp('query-migrate');
      if (done(info)) return;
      if (info.status === 'failed' || Date.now() > untilMs)
        throw new Error(`migration is ${info.status}, not ${wanted}: ${info['error-desc']}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async status(...wanted) {
    await this.until(({ status }) => wanted.includes(status), wanted);
  }

  async versionFacts() {
    const { qemu, package: distribution } = await this.qmp('query-version');
    return { qemu: `${qemu.major}.${qemu.minor}.${qemu.micro}`, package: distribution };
  }

  async quit() {
    this.process.kill('SIGKILL');
    await this.exited;
  }
}

export function within(what, promise) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end of ${what}`)), DEADLINE_MS);
  });
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer));
}

/** Where each fixture comes from: what is not captured anew stays. */
export function readProvenance(file) {
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
}

export function writeProvenance(file, provenance) {
  const sorted = Object.fromEntries(Object.entries(provenance).sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(file, JSON.stringify(sorted, null, 2) + '\n');
}
