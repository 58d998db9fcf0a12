/* Prints 0, 1, 2, … and checks a block of memory and the position of an open file at each step. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WORDS = 1 << 16 };

int main(void) {
    uint64_t *block = malloc(WORDS * sizeof *block);
    FILE *file = tmpfile();
    struct timespec pause = {0, 100000000};
    if (!block || !file) return 1;
    for (uint64_t i = 0; i < WORDS; i++) block[i] = i * 2654435761u;
    for (uint64_t n = 0;; n++) {
        uint64_t i = n % WORDS;
        if (block[i] != i * 2654435761u) { printf("memory is wrong\n"); return 2; }
        if (ftell(file) != (long)n) { printf("the file's position is wrong\n"); return 3; }
        fputc('x', file);
        printf("%lu\n", (unsigned long)n);
        fflush(stdout);
        nanosleep(&pause, NULL);
    }
}
