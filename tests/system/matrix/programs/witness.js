// Prints 0, 1, 2, … after a file was written and read back by the thread pool (or by io_uring, which libuv may choose).
const fs = require('fs/promises');
const path = `/tmp/witness-${process.pid}`;
const seen = [];

async function run() {
  for (let n = 0; ; n++) {
    await fs.writeFile(path, String(n));
    const text = await fs.readFile(path, 'utf8');
    seen.push(n);
    if (text !== String(n) || seen[n >> 1] !== n >> 1) throw new Error(`wrong: ${text}`);
    process.stdout.write(`${n}\n`);
    await new Promise(resolve => setTimeout(resolve, 100));
  }
}
run();
