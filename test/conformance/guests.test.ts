import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'node:test';
import { QemuProcess, REQUIRED_PEERS } from '../../src/qemu/index.ts';
import { checkLetters, readCounters, stateOf } from '../support/guests/boot-check.ts';
import { bootImage, bootProgram, walkOf } from '../support/guests/boot-sector.ts';
import { readTicks, ticked } from '../support/guests/linux-ticks.ts';
import { peerOrSkip } from '../support/peers.ts';

test('the random walk visits every page once a pass', () => {
  for (const pageCount of [2, 64, 4096]) {
    const walk = walkOf(bootProgram({ pageCount, order: 'random' }));
    assert.deepEqual(
      [...walk].sort((a, b) => a - b),
      Array.from({ length: pageCount }, (_, i) => i),
    );
  }
});

test('a lost page, a page of another pass and a lost letter are noticed', () => {
  const program = bootProgram({ pageCount: 64, order: 'random' });
  const walk = walkOf(program);
  const good = new Uint32Array(64).fill(7);
  for (let place = 0; place < 20; place++) good[walk[place] ?? 0] = 8;
  assert.deepEqual(stateOf(program, good), { passes: 7, place: 20 });
  for (let page = 0; page < 64; page++) {
    for (const wrong of [0, 6, 9, good[page] === 8 ? 7 : 8]) {
      const bad = good.with(page, wrong);
      // The page at the border counted up or not is the program a moment earlier or later.
      if ((page === walk[19] && wrong === 7) || (page === walk[20] && wrong === 8)) stateOf(program, bad);
      else assert.throws(() => stateOf(program, bad), /guest memory is wrong/);
    }
  }
  checkLetters(['ABC', 'DEFG'], { passes: 7, place: 20 });
  assert.throws(() => checkLetters(['ABC', 'EFG'], { passes: 7, place: 20 }), /letter 3 is E, expected D/);
  assert.throws(() => checkLetters(['ABCDEFGH'], { passes: 7, place: 20 }), /console shows 8 passes/);
});

test('ticks: unbroken across consoles, corrupt or broken ones are noticed', () => {
  const first = 'FILLED mb=4 workers=2\r\nTICK 0 0 OK 1.00 disk=ok net=up\r\nTICK 1 0 OK 1.10\r\nTICK 0 1 O';
  const ticks = readTicks([first, 'K 2.00 disk=ok net=up\r\n']);
  assert.deepEqual(ticks, { rounds: [2, 1], uptime: 2 });
  assert(ticked(ticks, [1, 0], 1) && !ticked(ticks, [1, 0], 2) && !ticked(readTicks(['']), [], 1));
  for (const [rest, complaint] of [
    ['K 2.00 disk=ok net=up\r\nTICK 0 3 OK 3.00 disk=ok net=up', /round 2 expected/],
    ['K 2.00 disk=ok net=up\r\nTICK 1 1 CORRUPT memory file.1', /corrupt/],
    ['K 2.00 disk=ok net=down', /device changed/],
    ['K 2.00 disk=ok net=up\r\n[ 3.0] Kernel panic - not syncing', /panic/],
  ] as const) {
    assert.throws(() => readTicks([first, rest, '\r\n']), complaint);
  }
});

for (const name of REQUIRED_PEERS) {
  const { peer, skip } = await peerOrSkip(name);
  for (const machine of ['pc', 'q35']) {
    test(`boot program runs and checks out: QEMU ${name} ${machine}`, { skip }, async () => {
      assert(peer !== undefined);
      const program = bootProgram(machine === 'pc' ? { order: 'sequential' } : { order: 'random', rests: true });
      const qemu = await QemuProcess.start({
        peer,
        args: async (folder) => {
          const image = join(folder, 'boot.img');
          await writeFile(image, bootImage(program));
          const disk = ['-drive', `if=none,id=boot,format=raw,file=${image}`, '-device', 'ide-hd,drive=boot'];
          return ['-nodefaults', '-machine', machine, '-accel', 'tcg', '-m', '64', ...disk];
        },
      });
      try {
        await qemu.serial.waitFor((text) => text.includes('ABC') || undefined, 'three passes', 20_000);
        await qemu.qmp.execute('stop');
        const state = stateOf(program, await readCounters(qemu.qmp, program, qemu.folder));
        checkLetters([qemu.serial.text], state);
        assert(state.passes >= 3);
      } finally {
        await qemu.stop();
      }
    });
  }
}
