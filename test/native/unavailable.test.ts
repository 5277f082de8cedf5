/** Without koffi: comfort is absent in silence, parallel channels say what they need. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';

test('what is missing is said', () => {
  const index = new URL('../../src/native/index.js', import.meta.url).href;
  const code = `
    import { syncBuiltinESMExports } from 'node:module';
    import Module from 'node:module';
    const create = Module.createRequire;
    Module.createRequire = (url) => (name) => {
      if (name === 'koffi') throw new Error('no such library');
      return create(url)(name);
    };
    syncBuiltinESMExports();
    const native = await import(${JSON.stringify(index)});
    const said = { huge: native.adviseHugePages(new Uint8Array(1 << 23)), thread: native.threadId() };
    native.nameThread('x');
    try {
      native.duplicate(0);
    } catch (error) {
      said.fault = error.fault;
      said.message = error.message;
      said.cause = error.cause.message;
    }
    console.log(JSON.stringify(said));`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' });
  assert.deepEqual(JSON.parse(stdout || stderr), {
    huge: false,
    thread: -1,
    fault: { code: 'NATIVE_UNAVAILABLE', what: 'parallel channels' },
    message: 'parallel channels need system calls that are made through the package koffi, which cannot be used here',
    cause: 'no such library',
  });
});
